import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ddl_d2.io.image import read_image, read_mask

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "make_forgeries.py"
TINY = ["--builtin", "--count", "8", "--size", "96", "--valid-share", "0.25", "--workers", "2"]


pytestmark = pytest.mark.usefixtures("needs_dlib")


def run(*arguments: object) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(TOOL), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)


def contents(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def is_one_line_error(done: subprocess.CompletedProcess) -> bool:
    return done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_builtin_set_is_whole_and_the_same_seed_gives_the_same_bytes(tmp_path):
    done = run(*TINY, "--output", tmp_path / "one", "--seed", 5)
    assert done.returncode == 0, done.stderr
    assert "SAME photographs" in done.stdout
    files = contents(tmp_path / "one")
    assert sorted(Path(name).parent.as_posix() for name in files if name.endswith((".jpg", ".png"))) == sorted(
        [f"train/{kind}" for kind in ("real", "fake", "masks")] * 3
        + [f"valid/{kind}" for kind in ("real", "fake", "masks")]
    )
    manifest = json.loads(files["manifest.json"])
    assert manifest["complete"]
    assert manifest["photographs"]["train"] == ["astronaut", "grace_hopper"]
    assert str(tmp_path).encode() not in b"".join(files.values())
    image, mask = read_image(tmp_path / "one/train/fake/000000.jpg"), read_mask(tmp_path / "one/train/masks/000000.png")
    assert image.shape == (96, 96, 3)
    assert mask.shape == (96, 96)
    assert mask.any()

    again = run(*TINY[:-1], "1", "--output", tmp_path / "two", "--seed", 5)
    assert again.returncode == 0, again.stderr
    assert contents(tmp_path / "two") == files

    refused = run(*TINY, "--output", tmp_path / "one", "--seed", 6)
    assert is_one_line_error(refused), refused.stderr
    assert "--overwrite" in refused.stderr
    assert contents(tmp_path / "one") == files


def test_a_cache_of_landmarks_changes_no_byte(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(TOOL.parent))
    import make_forgeries

    arguments = [*TINY[:-1], "1", "--count", "2"]
    assert make_forgeries.main([*arguments, "--output", str(tmp_path / "one")]) == 0
    for name in ("two", "three"):  # the cache filled, then read
        cached = ["--landmarks", str(tmp_path / "cache"), "--output", str(tmp_path / name)]
        assert make_forgeries.main([*arguments, *cached]) == 0
        assert contents(tmp_path / name) == contents(tmp_path / "one")
    assert len(list((tmp_path / "cache").rglob("*.json"))) == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--real-dir", "none"], "none is not a folder"),
        (["--real-dir", "empty"], "no image"),
        ([*TINY, "--landmark-model", "none.dat"], "none.dat does not exist"),
    ],
)
def test_bad_input_is_named_and_makes_nothing(tmp_path, monkeypatch, capsys, arguments, says):
    monkeypatch.syspath_prepend(str(TOOL.parent))
    import make_forgeries

    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit) as stopped:
        make_forgeries.main([*arguments, "--output", "out"])
    assert stopped.value.code == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
