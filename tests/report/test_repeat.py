"""Records of examinations, and their repetition: the same to the byte, or what differs."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from ddl_d2.cli import examine, replay
from ddl_d2.errors import RecordError
from ddl_d2.inference.calibrated_weights import tensors_digest
from ddl_d2.inference.model import load_model
from ddl_d2.predictions.meta import file_sha256
from ddl_d2.predictions.settings import prediction_settings
from ddl_d2.report.repeat import read_record, repeat
from tests.conftest import ROOT
from tests.predictions.test_calibration import MADE
from tests.video_files import write_video


@pytest.fixture
def run(tiny_weights, capsys):
    """Run a command; returns (exit code, stdout, stderr)."""

    def call(command, *words):
        try:
            code = command.main([str(word) for word in words])
        except SystemExit as stopped:
            code = stopped.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def case(run, photo, tiny_weights, tmp_path):
    """A folder with the record of a photo, above the threshold."""
    weights = tiny_weights / "0.safetensors"
    code, _, err = run(examine, photo, "--output", tmp_path / "case", "--weights", weights, "--threshold", "0.01")
    assert (code, "head of the chain" in err) == (0, True)
    return tmp_path / "case"


def test_a_record_says_what_was_examined_with_what(case, photo, tiny_weights):
    record = read_record(case / "0001-photo.json")
    assert record["subject"]["file"] == str(photo)
    assert record["subject"]["bytes"] == photo.stat().st_size
    assert record["model"]["name"] == "tiny_0"
    assert record["model"]["trained_on"] == ["weights of chance"]
    assert {"torch", "numpy", "pillow", "python", "ddl_d2"} <= record["environment"]["versions"].keys()
    assert record["environment"]["threads"] == 1
    assert set(record["propositions"]) == {"forged", "authentic"}
    found = {finding["name"]: finding for finding in record["findings"]}
    assert found["verdict"]["value"] == {"verdict": "fake", "threshold": 0.01}
    assert "Uncalibrated" in found["likelihood_ratio"]["statement"]
    assert all(finding["limits"] for finding in record["findings"])


def test_the_page_says_the_same_and_asks_for_nothing(case):
    record = read_record(case / "0001-photo.json")
    page = (case / "0001-photo.html").read_text()
    for finding in record["findings"]:
        assert finding["title"] in page
    assert record["findings_sha256"] in page
    assert "http" not in page.replace("http-equiv", "")
    assert 'src="data:image/png;base64' in page


def test_an_examination_is_repeated_to_the_byte(run, case):
    code, out, _ = run(replay, case / "0001-photo.json")
    assert (code, out.splitlines()[-1]) == (0, "the findings are the same to the byte")
    assert read_record(case / "0001-photo.json")["findings_sha256"] in out
    torch.set_num_threads(2)  # the repetition has as many as the examination
    assert run(replay, case / "0001-photo.json")[0] == 0
    assert torch.get_num_threads() == 2


def test_a_fresh_process_repeats_it_to_the_byte(case):
    command = [sys.executable, "-m", "ddl_d2.cli.main", "replay", str(case / "0001-photo.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_changed_file_is_told(run, case, photo):
    photo.write_bytes(photo.read_bytes() + b"\0")
    code, _, err = run(replay, case / "0001-photo.json")
    assert (code, "is not the examined file: its sha256 is not" in err) == (2, True)
    photo.unlink()
    assert "say where it is" in run(replay, case / "0001-photo.json")[2]


def test_a_moved_file_is_found_beside_the_record_or_where_it_is_said(run, case, photo, tmp_path):
    photo.rename(case / "photo.jpg")
    assert run(replay, case / "0001-photo.json")[0] == 0
    (case / "photo.jpg").rename(tmp_path / "elsewhere")
    assert run(replay, case / "0001-photo.json", "--input", tmp_path / "elsewhere")[0] == 0


def test_other_weights_are_told(run, case, tiny_weights):
    code, _, err = run(replay, case / "0001-photo.json", "--weights", tiny_weights / "1.safetensors")
    assert (code, "is not the file of weights" in err) == (2, True)


def test_a_flipped_byte_in_any_part_is_told(run, case):
    for path in sorted(case.iterdir()):
        content = path.read_bytes()
        for position in range(0, len(content), max(1, len(content) // 5)):
            path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
            assert run(replay, case)[0] == 2
            assert run(replay, case / "0001-photo.json")[0] == 2
        path.write_bytes(content)
    assert run(replay, case)[0] == 0


def test_what_differs_is_said(case, tmp_path, run):
    record = json.loads((case / "0001-photo.json").read_text())
    record["environment"]["versions"]["numpy"] = "0.1"
    record["model"]["threshold"] = 0.99
    (tmp_path / "alone.json").write_text(json.dumps(record))
    result = repeat(tmp_path / "alone.json")
    assert (result.same, result.chained) == (False, False)
    assert any(line.startswith("version of numpy: 0.1 then, ") for line in result.differences)
    assert any(line.startswith("finding verdict: ") for line in result.differences)
    code, out, _ = run(replay, tmp_path / "alone.json")
    assert (code, out.splitlines()[-1]) == (1, "the findings are not the same")


def test_a_record_whose_findings_were_changed_is_refused(case, tmp_path):
    record = json.loads((case / "0001-photo.json").read_text())
    record["findings"][0]["statement"] = "Another one."
    (tmp_path / "changed.json").write_text(json.dumps(record))
    with pytest.raises(RecordError, match="findings do not have the sha256"):
        repeat(tmp_path / "changed.json")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": "ddl_d2 examination record 1"}', "[" * 10**5])
def test_what_is_no_record_is_refused(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(RecordError, match=r"a\.json"):
        read_record(tmp_path / "a.json")


def test_the_same_word_repeats_steps_and_records(run, case, tmp_path):
    assert "are for examination records" in run(replay, tmp_path / "a.pth", "--head", "0")[2]
    assert "are for training steps" in run(replay, case, "--precision", "float32")[2]
    code, out, _ = run(replay, case, "--head", "0" * 64)
    assert (code, out) == (2, "")


def test_a_key_seals_the_chain(run, photo, tiny_weights, tmp_path):
    (tmp_path / "key").write_bytes(bytes(range(32)))
    words = (photo, "--output", tmp_path / "case", "--weights", tiny_weights / "0.safetensors")
    assert run(examine, *words, "--key", tmp_path / "key")[0] == 0
    assert "HMACs are of this key" in run(replay, tmp_path / "case", "--key", tmp_path / "key")[1]
    assert "not checked" in run(replay, tmp_path / "case")[1]
    assert run(examine, *words)[0] == 2


def test_fragility_is_part_of_the_record(run, photo, tiny_weights, tmp_path):
    weights = tiny_weights / "0.safetensors"
    code, _, _ = run(examine, photo, "--output", tmp_path / "case", "--weights", weights, "--fragility")
    assert code == 0
    found = {one["name"]: one for one in read_record(tmp_path / "case/0001-photo.json")["findings"]}
    assert len(found["fragility"]["value"]["deliveries"]) == 12
    assert run(replay, tmp_path / "case/0001-photo.json")[0] == 0


def test_a_calibration_is_part_of_the_record(run, photo, tiny_weights, tmp_path):
    weights = tiny_weights / "0.safetensors"
    model = load_model(weights, device="cpu")
    bound = {
        "weights_sha256": file_sha256(weights),
        "tensors_sha256": tensors_digest(weights),
        "settings": prediction_settings(model.cfg),
    }
    calibration = replace(MADE, forged_above=-1.0, none_below=-1.0, **bound)
    (tmp_path / "c.json").write_text(json.dumps(calibration.to_json()))
    words = ("--weights", weights, "--calibration", tmp_path / "c.json")
    assert run(examine, photo, "--output", tmp_path / "case", *words)[0] == 0
    record = read_record(tmp_path / "case/0001-photo.json")
    found = {one["name"]: one for one in record["findings"]}
    assert found["verdict"]["kind"] == "inferred"
    assert found["verdict"]["value"]["calibration"] == calibration.fingerprint
    assert "faces of a test" in found["verdict"]["statement"]
    assert "likelihood_ratio" not in found
    assert run(replay, tmp_path / "case/0001-photo.json")[0] == 0


def test_clips_and_unreadable_files(run, photo, tiny_weights, tmp_path):
    write_video(tmp_path / "in/clip.mp4", 3)
    (tmp_path / "in/bad.jpg").write_bytes(b"no image")
    code, out, err = run(
        examine,
        tmp_path / "in",
        "--output",
        tmp_path / "case",
        "--frames",
        2,
        "--weights",
        tiny_weights / "0.safetensors",
    )
    assert code == 1
    assert "bad.jpg: " in err
    assert out.count("\n") == 1
    record = read_record(tmp_path / "case/0001-clip.json")
    found = {finding["name"]: finding for finding in record["findings"]}
    assert len(found["frames"]["value"]) == 2
    assert found["sound"]["kind"] == "not available"
    assert run(replay, tmp_path / "case/0001-clip.json")[0] == 0
