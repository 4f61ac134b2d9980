"""`ddl-d2 cache-tokens`: fills, goes on, says what it takes, and refuses what cannot be cached."""

from __future__ import annotations

import numpy as np
import pytest

from ddl_d2.cli import cache_tokens, train
from ddl_d2.data.token_cache import TokenCache, TokenWriter
from ddl_d2.io.image import write_png
from tests.conftest import TINY, make_tiny_set
from tests.loupe_small import CLASSIFIER_ONLY, SMALL_LOUPE
from tests.ranks import on_ranks

CONFIG = "quickstart/mask2former_efficientnet_lite0"
# The maps res3 (40 channels) and res4 (112) of EfficientNet-Lite0 at 64 x 64: 8 x 8 tokens, and their mean; fp32.
BYTES = (64 + 1) * (40 + 112) * 4


@pytest.fixture
def fill(tmp_path):
    """`fill(KEY, VALUE, ..., flags=[...])` runs the command on the tiny set in `data/`."""
    make_tiny_set(tmp_path / "data")
    opts = [*TINY, *SMALL_LOUPE, *CLASSIFIER_ONLY, "DATASETS.DDL_ROOT", str(tmp_path / "data")]

    def run(*more, flags=()):
        return cache_tokens.main(
            ["--config-file", CONFIG, *flags, *opts, "MODEL.LOUPE.TOKEN_CACHE", str(tmp_path / "tokens"), *more]
        )

    run.opts = opts
    return run


def test_a_second_call_adds_what_is_missing(fill, tmp_path, capsys):
    assert fill() == 0
    first, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith("14 images of ddl_i_train, ddl_i_valid: 0.00 GB of tokens in ")
    assert rest == [
        "ddl_i_train: 8 added, 0 there already, 0 unreadable",
        "ddl_i_valid: 6 added, 0 there already, 0 unreadable",
    ]
    assert len(TokenCache(tmp_path / "tokens")) == 14
    write_png(tmp_path / "data" / "valid" / "real" / "0.png", np.zeros((64, 80, 3), np.uint8))
    (tmp_path / "data" / "train" / "fake" / "1.png").write_bytes(b"no image")
    fill()
    assert capsys.readouterr().out.splitlines()[1:] == [
        "ddl_i_train: 0 added, 7 there already, 1 unreadable",
        "ddl_i_valid: 1 added, 5 there already, 0 unreadable",
    ]
    assert len(TokenCache(tmp_path / "tokens")) == 15


def test_a_dry_run_says_what_it_takes(fill, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cache_tokens, "_GB", 1)
    assert fill(flags=["--dry-run"]) == 0
    assert f"14 images of ddl_i_train, ddl_i_valid: {14 * BYTES}.00 GB of tokens" in capsys.readouterr().out
    assert not (tmp_path / "tokens").exists()


def test_more_than_may_be_used_is_refused(fill, tmp_path, capsys):
    with pytest.raises(SystemExit):
        fill(flags=["--max-gb", "0.0001"])
    assert "that may be used: name a folder on another disk, take part of the images, or" in capsys.readouterr().err
    assert not (tmp_path / "tokens").exists()


def test_a_killed_filling_goes_on(fill, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cache_tokens, "TokenWriter", _dying_after(3))
    with pytest.raises(KeyError):
        fill()
    assert len(TokenCache(tmp_path / "tokens")) == 3
    monkeypatch.undo()
    fill()
    assert "ddl_i_train: 5 added, 3 there already" in capsys.readouterr().out


def _dying_after(images):
    """A writer that writes each image at once, and dies after some."""

    class Dying(TokenWriter):
        def __init__(self, *args):
            super().__init__(*args, shard_bytes=1)
            self.left = images

        def add(self, key, image):
            if not self.left:
                raise KeyError("killed")
            self.left -= 1
            super().add(key, image)

    return Dying


def test_two_processes_fill_and_train(fill, tmp_path):
    words = ["--config-file", CONFIG, *fill.opts, "MODEL.LOUPE.TOKEN_CACHE", str(tmp_path / "tokens")]
    training = [*words, "SOLVER.MAX_ITER", "2", "OUTPUT_DIR", str(tmp_path / "out")]
    assert on_ranks(_fill_and_train, 2, words, training) == [True, True]
    assert len(TokenCache(tmp_path / "tokens")) == 14
    assert (tmp_path / "out" / "model_final.safetensors").is_file()


def _fill_and_train(rank, words, training):
    cache_tokens.fill_all(cache_tokens.build_parser().parse_args(words))
    train.train_or_evaluate(train.build_parser().parse_args(training))
    return rank in (0, 1)


@pytest.mark.parametrize(
    ("opts", "says"),
    [
        (["MODEL.LOUPE.TOKEN_CACHE", ""], "MODEL.LOUPE.TOKEN_CACHE is empty: name the folder"),
        (["DATASETS.TRAIN", "()", "DATASETS.TEST", "()"], "there is nothing to compute tokens of"),
        (["DATASETS.TRAIN", "('nothing',)"], "'nothing'"),
        (["INPUT.CROP.ENABLED", "True"], "this config changes them; set INPUT.CROP.ENABLED False"),
        (["SOLVER.FREEZE", "[]"], "the backbone is trained"),
        (["MODEL.WEIGHTS", "nothing.pth"], "nothing.pth: no such weights file"),
    ],
)
def test_what_cannot_be_cached(fill, tmp_path, capsys, opts, says):
    with pytest.raises(SystemExit) as stopped:
        fill(*opts)
    assert stopped.value.code == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "tokens").exists()


def test_a_folder_of_other_tokens_is_left_alone(fill, tmp_path, capsys):
    fill()
    with pytest.raises(SystemExit):
        fill("SEED", "4")
    assert "holds other tokens than this config and its weights make (weights " in capsys.readouterr().err
    assert len(TokenCache(tmp_path / "tokens")) == 14
