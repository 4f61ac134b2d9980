"""What the service answers to those who mean well."""

import asyncio
import io
import json
import threading
import zipfile

import pytest
from fastapi.testclient import TestClient

from ddl_d2.errors import CheckpointError
from ddl_d2.report.chain import verify_chain
from ddl_d2.report.examination import Examiner
from ddl_d2.report.repeat import read_record
from ddl_d2.serve.app import build_app
from ddl_d2.serve.limits import Limits, RefusedRequestError
from ddl_d2.serve.service import Service
from ddl_d2.serve.upload import clean_name
from ddl_d2.serve.work import Work
from tests.serve.test_hostile_requests import JPEG
from tests.video_files import write_video


@pytest.fixture(scope="module")
def client(port):
    import httpx

    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as one:
        yield one


def test_an_image_is_examined(client, photo):
    answer = client.post("/api/predict", params={"name": "a.jpg", "model": "tiny_1"}, content=photo.read_bytes())
    assert answer.status_code == 200
    said = answer.json()
    assert (said["file"], said["kind"], said["model"]["name"]) == ("a.jpg", "image", "tiny_1")
    assert 0 <= said["score"] <= 1
    assert said["verdict"] == ("fake" if said["score"] > 0.5 else "real")
    assert said["images"]["layer"].startswith("data:image/png;base64,")
    assert {"content_credentials", "score", "verdict", "forgery_map"} <= {one["name"] for one in said["findings"]}


def test_a_clip_is_examined(client, tmp_path):
    write_video(tmp_path / "clip.mp4", 5)
    said = client.post("/api/predict?name=clip.mp4", content=(tmp_path / "clip.mp4").read_bytes()).json()
    assert (said["kind"], len(said["frames"]), said["images"]["image"]) == ("clip", 2, None)


def test_the_record_can_be_checked_and_says_the_same(client, photo, tmp_path):
    content = photo.read_bytes()
    answer = client.post("/api/record?name=my%20photo.jpg", content=content)
    assert answer.headers["content-disposition"] == 'attachment; filename="record-my_photo.zip"'
    zipfile.ZipFile(io.BytesIO(answer.content)).extractall(tmp_path)
    (line,) = verify_chain(tmp_path / "record")
    record = read_record(tmp_path / "record" / line["record"])
    assert record["subject"]["file"] == "my photo.jpg"
    again = client.post("/api/predict?name=my%20photo.jpg", content=content).json()
    assert record["findings_sha256"] == again["findings_sha256"]


def test_every_answer_keeps_the_page_to_itself(client):
    for path in ("/", "/api", "/static/page.js", "/api/models", "/nothing"):
        headers = client.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert (headers["x-content-type-options"], headers["cache-control"]) == ("nosniff", "no-store")
        assert "access-control-allow-origin" not in headers


def test_the_service_is_documented_without_a_network(client):
    described = client.get("/openapi.json").json()
    assert {"/api/predict", "/api/record", "/api/models", "/live", "/ready"} == set(described["paths"])
    assert {"200", "408", "413", "415", "422", "503"} <= set(described["paths"]["/api/predict"]["post"]["responses"])
    page = client.get("/api").text
    assert "curl --data-binary @photo.jpg" in page
    assert "/api/record" in page
    assert "https://" not in page


def test_it_is_live_before_it_is_ready(tiny_weights):
    begun, go_on = threading.Event(), threading.Event()

    def load():
        begun.set()
        go_on.wait(10)
        return {"one": None}

    service = Service(load)
    with TestClient(build_app(service), base_url="http://127.0.0.1") as client:
        begun.wait(10)
        assert client.get("/live").status_code == 200
        assert client.get("/ready").status_code == 503
        answer = client.post("/api/predict", content=b"x")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert client.get("/api/models").json() == {"models": []}
        go_on.set()
        while client.get("/ready").status_code != 200:
            pass


def test_models_that_cannot_be_loaded_end_the_service():
    def load():
        raise CheckpointError("a.safetensors: no such weights file")

    service, ended = Service(load), threading.Event()
    service.on_error = ended.set
    service.load()
    assert ended.is_set()
    assert isinstance(service.error, CheckpointError)


def test_a_fault_of_the_program_is_told_without_its_inside(caplog):
    class Broken(Examiner):
        def examine_image(self, content, called):
            raise RuntimeError("secret inside")

    service = Service(lambda: {"one": Broken(model=None)})
    service.load()
    with TestClient(build_app(service), base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        answer = client.post("/api/predict", content=JPEG)
    assert (answer.status_code, answer.json()) == (500, {"error": "a fault of the program; its log says more"})
    assert "secret inside" in caplog.text


def test_work_is_done_one_by_one_and_refused_when_too_much_waits():
    async def scenario():
        work, gate = Work(Limits(waiting=1, seconds=0.3)), threading.Event()
        first = asyncio.create_task(work.run(gate.wait, 5))
        second = asyncio.create_task(work.run(lambda: "second"))
        await asyncio.sleep(0.05)
        with pytest.raises(RefusedRequestError, match="busy"):
            await work.run(lambda: "third")
        # The time is up for both; the first goes on and counts until it ends.
        for task in (first, second):
            with pytest.raises(RefusedRequestError, match=r"not done after 0\.3 s"):
                await task
        gate.set()
        await asyncio.sleep(0.1)
        assert await work.run(lambda: "fourth") == "fourth"
        work.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("sent", "name"),
    [("a.jpg", "a.jpg"), ("../../a.jpg", "a.jpg"), ("C:\\x\\a.jpg", "a.jpg"), ("", "upload"), ("a\nb", "a\\nb")],
)
def test_names_are_cut_to_their_last_part(sent, name):
    assert clean_name(sent) == name


def test_answers_are_json_even_of_a_wrong_address(client):
    answer = client.get("/nothing")
    assert (answer.status_code, json.loads(answer.text)) == (404, {"error": "Not Found"})
