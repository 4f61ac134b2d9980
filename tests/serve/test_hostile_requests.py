"""Requests that nobody well-meaning sends: each has its answer, and the service goes on and keeps nothing."""

import io
import json
import socket
import struct
import tempfile
import threading
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.serve.conftest import post
from tests.video_files import write_video


def saved(kind, size=(64, 48), **options):
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, kind, **options)
    return content.getvalue()


def png_of_size(width, height):
    """A PNG that says it is as large, with next to nothing in it."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def zipped():
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(10**7))
    return content.getvalue()


def chunked(port, content, size=4096):
    """The same without its length."""
    head = post(port, b"", Content_Length="", Transfer_Encoding="chunked").decode()
    parts = [content[start : start + size] for start in range(0, len(content), size)]
    return head.encode() + b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def text_bomb():
    """A PNG whose compressed text would be 50 MB."""
    whole = saved("PNG")
    data = b"parameters\0\0" + zlib.compress(bytes(5 * 10**7))
    chunk = struct.pack(">I", len(data)) + b"zTXt" + data + struct.pack(">I", zlib.crc32(b"zTXt" + data))
    return whole[:33] + chunk + whole[33:]


def clip(tmp_path):
    write_video(tmp_path / "clip.mp4", 3)
    return (tmp_path / "clip.mp4").read_bytes()


JPEG = saved("JPEG")
FORM = "multipart/form-data; boundary=x"
# Name of the case -> (status, or several that are allowed; (port, folder) -> the request).
CASES = {
    "nothing": (422, lambda port, _: post(port, b"")),
    "text": (415, lambda port, _: post(port, b"hello " * 100)),
    "a page with a script": (415, lambda port, _: post(port, b"<html><script>alert(1)</script>")),
    "an SVG": (415, lambda port, _: post(port, b'<svg xmlns="http://www.w3.org/2000/svg"/>')),
    "a PDF": (415, lambda port, _: post(port, b"%PDF-1.7\n" + bytes(500))),
    "a ZIP of zeros": (415, lambda port, _: post(port, zipped())),
    "a GIF": (415, lambda port, _: post(port, saved("GIF"))),
    "a HEIC": (415, lambda port, _: post(port, b"\0\0\0\x18ftypheic" + bytes(500))),
    "a form": (415, lambda port, _: post(port, JPEG, Content_Type=FORM)),
    "half a JPEG": (422, lambda port, _: post(port, JPEG[: len(JPEG) // 2])),
    "a JPEG of zeros": (422, lambda port, _: post(port, b"\xff\xd8\xff\xe0" + bytes(2000))),
    "half a PNG": (422, lambda port, _: post(port, saved("PNG")[:500])),
    "a PNG of 60,000 x 60,000 pixels": (413, lambda port, _: post(port, png_of_size(60000, 60000))),
    "a PNG of 2^31 - 1 pixels a side": ((413, 422), lambda port, _: post(port, png_of_size(2**31 - 1, 2**31 - 1))),
    "a PNG without pixels": (422, lambda port, _: post(port, png_of_size(0, 5))),
    "a text that unpacks to 50 MB": ((200, 422), lambda port, _: post(port, text_bomb())),
    "more pixels than allowed": (413, lambda port, _: post(port, saved("JPEG", (1100, 1000), quality=5))),
    "more bytes than allowed": (413, lambda port, _: post(port, JPEG + bytes(2**20))),
    "more bytes than allowed, of unstated length": (413, lambda port, _: chunked(port, JPEG + bytes(2**21))),
    "a length of 10^18": (413, lambda port, _: post(port, JPEG, Content_Length="1" + "0" * 18)),
    "a length below 0": (400, lambda port, _: post(port, JPEG, Content_Length="-5")),
    "a length that is none": (400, lambda port, _: post(port, JPEG, Content_Length="many")),
    "two lengths": (400, lambda port, _: post(port, JPEG, content_length="7")),
    "half a clip": (422, lambda port, folder: post(port, clip(folder)[:-400])),
    "a clip of zeros": (422, lambda port, _: post(port, b"\0\0\0\x20ftypisom" + bytes(5000))),
    "a playlist": (415, lambda port, _: post(port, b"#EXTM3U\nfile:///etc/passwd\n")),
    "a model that is none": (422, lambda port, _: post(port, JPEG, "/api/predict?model=../../etc/passwd")),
    "a name that leads away": (200, lambda port, _: post(port, JPEG, "/api/record?name=../../../../tmp/owned.html")),
    "a name with lines and tags": (
        200,
        lambda port, _: post(port, JPEG, "/api/record?name=a%0d%0aSet-Cookie:x=1%00%3Cscript%3Ealert(1)%3C/x%3E.jpg"),
    ),
    "a name of 3,000 letters": (422, lambda port, _: post(port, JPEG, f"/api/predict?name={'a' * 3000}")),
    "an address of 60,000 letters": ((400, 414), lambda port, _: post(port, JPEG, f"/api/predict?name={'a' * 60000}")),
    "a header of 100,000 letters": ((400, 431), lambda port, _: post(port, JPEG, X="a" * 100_000)),
    "no HTTP": (400, lambda port, _: b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(50) + b"\r\n\r\n"),
    "another host": (400, lambda port, _: post(port, JPEG, Host="evil.example")),
    "another host that ends well": (400, lambda port, _: post(port, JPEG, Host="evil.example#127.0.0.1")),
    "no host": (400, lambda port, _: post(port, JPEG, Host="")),
    "another site's page": (403, lambda port, _: post(port, JPEG, Origin="https://evil.example")),
    "a page without an origin": (403, lambda port, _: post(port, JPEG, Origin="null")),
    "a browser on behalf of another site": (403, lambda port, _: post(port, JPEG, Sec_Fetch_Site="cross-site")),
    "a path that leads away": (404, lambda port, _: get(port, "/static/../../../../etc/passwd")),
    "a path that leads away, encoded": (404, lambda port, _: get(port, "/static/..%2f..%2fapp.py")),
    "a wrong method": (405, lambda port, _: post(port, JPEG).replace(b"POST", b"DELETE", 1)),
}  # fmt: skip


def get(port, path):
    return post(port, b"", path).replace(b"POST", b"GET", 1)


def temporary_files():
    return set(Path(tempfile.gettempdir()).glob("ddl_d2-*"))


@pytest.fixture(autouse=True)
def _goes_on(ask, port):
    """After each case the service answers as before, and has left nothing on the disk."""
    before = temporary_files()
    yield
    assert ask(post(port, JPEG))[0] == 200
    assert temporary_files() <= before


def test_there_are_25_and_more():
    assert len(CASES) >= 25


@pytest.mark.parametrize("name", CASES)
def test_a_request_has_its_answer(name, ask, port, tmp_path, caplog):
    expected, make = CASES[name]
    started = time.monotonic()
    status, answer = ask(make(port, tmp_path))
    assert status in (expected if isinstance(expected, tuple) else (expected,)), answer[:400]
    assert time.monotonic() - started < 15
    # No inside of the program, no path of the machine.
    for word in ("Traceback", 'File "', "site-packages", "ddl_d2-", "root:", str(Path.home()) + "/"):
        assert word not in answer
    assert "Set-Cookie" not in answer.partition("\r\n\r\n")[0]
    assert "Traceback" not in caplog.text
    if status != 200 and answer.partition("\r\n\r\n")[2].startswith("{"):
        assert set(json.loads(answer.partition("\r\n\r\n")[2])) == {"error"}


def test_an_upload_that_stalls_ends(ask, port):
    started = time.monotonic()
    status, answer = ask(post(port, JPEG[:100], Content_Length=str(len(JPEG))))
    assert (status, "took longer than 1 s" in answer) == (408, True)
    assert time.monotonic() - started < 10


def test_a_connection_that_ends_early_is_no_fault(port, caplog):
    for request in (post(port, JPEG)[:-100], b"POST /api/predict HTT", b""):
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(request)
    time.sleep(0.2)
    assert "Traceback" not in caplog.text


def test_many_at_once_are_answered_or_told_to_wait(ask, port):
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(ask(post(port, JPEG))[0])) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(answers) == {200, 503}
    assert len(answers) == 12
