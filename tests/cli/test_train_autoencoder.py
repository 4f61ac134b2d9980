import numpy as np
import pytest

from ddl_d2.cli.train_autoencoder import main
from ddl_d2.forging.draw import Draw
from ddl_d2.forging.face_autoencoder import FaceAutoencoder
from ddl_d2.io.image import write_png

RECIPE = "release/eyes_lite0"


def _train(folder, output, *more):
    sources = f"[['here', '{folder}', 1.0]]"
    keys = [
        "DATASETS.SOURCES",
        sources,
        "DATASETS.TRAIN",
        "('here_train',)",
        "INPUT.FACES.CACHE",
        str(folder / "faces"),
    ]
    return main(["--config", RECIPE, "--output", str(output), "--steps", "2", "--opts", *keys, *more])


@pytest.fixture
def portraits(tmp_path, astronaut, finder):
    write_png(tmp_path / "train/real/astronaut.png", astronaut)
    return tmp_path


def test_it_writes_a_network_that_rebuilds(portraits, tmp_path, capsys, astronaut):
    output = tmp_path / "out/autoencoder.safetensors"
    assert _train(portraits, output) == 0
    assert "1 faces, 2 steps" in capsys.readouterr().out
    image = FaceAutoencoder.loaded(output).whole(astronaut, Draw(np.random.default_rng(0)), longest=64)
    assert image.shape == astronaut.shape


def test_another_ending_is_refused(portraits, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        _train(portraits, tmp_path / "out.pth")
    assert stopped.value.code == 2
    assert ".safetensors" in capsys.readouterr().err


def test_bad_seeds_and_files_that_are_there_are_refused(tmp_path, capsys):
    output = tmp_path / "mine.safetensors"
    output.write_bytes(b"mine")
    for words in (["--output", str(output)], ["--output", str(tmp_path / "new.safetensors"), "--seed", "-1"]):
        with pytest.raises(SystemExit) as stopped:
            main(["--config", RECIPE, *words])
        assert stopped.value.code == 2
    assert output.read_bytes() == b"mine"
    assert "must be 0 or more" in capsys.readouterr().err
