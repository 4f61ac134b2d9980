"""tools/forgery_sheet.py: sheets of the right shape, the same for one seed, and one-line errors."""

from pathlib import Path

import numpy as np
import pytest
import skimage

from ddl_d2.cli import forgery_sheet
from ddl_d2.forging.regions import REGIONS
from ddl_d2.io.image import read_image, write_png


@pytest.fixture(scope="module")
def tool(needs_dlib):
    return forgery_sheet


def test_a_row_per_region(tool, tmp_path):
    one, two, other = (tmp_path / f"{name}.png" for name in ("one", "two", "other"))
    for path, seed in ((one, 0), (two, 0), (other, 1)):
        assert tool.main(["--output", str(path), "--cell", "48", "--seed", str(seed)]) == 0
    sheet = read_image(one)
    # a header and, for each region, a label of 18 pixels and a cell of 48; 7 columns with gaps of 2
    assert sheet.shape == (18 + len(REGIONS) * (18 + 48), 7 * (48 + 2) - 2, 3)
    assert one.read_bytes() == two.read_bytes() != other.read_bytes()
    for row in range(len(REGIONS)):
        top = 18 + row * (18 + 48) + 18
        cells = [sheet[top : top + 48, column * 50 : column * 50 + 48].astype(int) for column in range(7)]
        assert cells[3].max() == 255  # a mask
        assert 0 < (cells[4] > 127).sum() <= (cells[3] > 127).sum() + 3 * 48
        assert cells[6].max() > 0  # a difference


def test_a_row_per_image_with_and_without_a_face(tool, tmp_path):
    astronaut = read_image(Path(skimage.__file__).parent / "data/astronaut.png")
    write_png(tmp_path / "in" / "a.png", astronaut[:300, 80:380])
    write_png(tmp_path / "in" / "b.png", np.full((60, 80, 3), 77, np.uint8))
    write_png(tmp_path / "in" / "c.png", np.full((60, 80, 3), 99, np.uint8))
    out = tmp_path / "sheet.png"
    assert tool.main(["--input", str(tmp_path / "in"), "--count", "2", "--cell", "40", "--output", str(out)]) == 0
    sheet = read_image(out)
    assert sheet.shape == (18 + 2 * 58, 4 * 42 - 2, 3)
    assert sheet[36:76, 84:124].max() > 200  # a soft mask
    assert not sheet[94:134, 42:82].any()  # no face, no forgery


def test_a_profile(tool, capsys, monkeypatch):
    whole = tool.profile
    monkeypatch.setattr(tool, "profile", lambda *arguments: whole(*arguments, pairs=20))
    assert tool.main(["--profile"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "pairs a second on one core" in lines[0]
    assert float(lines[0].split()[0]) > 40  # a tenth of what two old cores make
    assert [line.split()[0] for line in lines[1:]] == list(tool.PROFILED)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "give --output or --profile"),
        (["--output", "s.png", "--input", "none"], "none is not a folder"),
        (["--output", "s.png", "none.png"], "none.png"),
        (["--output", "s.png", "--cell", "3"], "--cell"),
        (["--output", "s.png", "black.png"], "no face found"),
    ],
)
def test_bad_input(tool, arguments, says, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_png(tmp_path / "black.png", np.zeros((50, 50, 3), np.uint8))
    with pytest.raises(SystemExit) as stopped:
        tool.main(arguments)
    assert stopped.value.code == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "s.png").exists()
