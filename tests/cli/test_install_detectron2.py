"""`ddl-d2 install-detectron2`: what it leaves out, and that its requirement is the one in requirements/."""

from ddl_d2.cli import install_detectron2
from tests.conftest import ROOT


def test_an_installed_detectron2_stays(capsys):
    assert install_detectron2.main([]) == 0
    assert "already installed" in capsys.readouterr().out


def test_one_requirement():
    lines = (ROOT / "requirements/detectron2.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not line.startswith("#")] == [install_detectron2.REQUIREMENT]


def test_what_is_stripped(tmp_path):
    for name in ("detectron2/_C.cpython-310.so", "detectron2/config/config.py", "tools/x.py", "bin/y"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    metadata = tmp_path / "sal_detectron2-0.7.2.dist-info/METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Name: sal-detectron2\nRequires-Dist: numpy<2\nVersion: 0.7.2\n")
    install_detectron2._strip(tmp_path)
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {"detectron2/config/config.py", "sal_detectron2-0.7.2.dist-info/METADATA"}
    assert metadata.read_text() == "Name: sal-detectron2\nVersion: 0.7.2\n"
