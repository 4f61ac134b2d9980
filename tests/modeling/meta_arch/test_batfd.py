"""What clip models promise: losses, predictions, windows, clips without sound, and weights that load."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from ddl_d2.errors import ConfigError
from ddl_d2.modeling.batfd.windows import WindowPrediction, merged, window_starts
from tests.modeling.meta_arch.batfd_cases import clip_model

_SMALL = ["MODEL.BATFD.BOUNDARY_DIMS", "[16, 8]", "MODEL.BATFD.AUDIO_ENCODER", "light"]
_SMALL += ["MODEL.BATFD.VIDEO_ENCODER", "timm:tf_efficientnet_lite0", "MODEL.BATFD.FEATURE_DIM", "32"]
_UMMA = ["MODEL.UMMA.ENABLED", "True", "MODEL.UMMA.DIM", "16", "MODEL.UMMA.HEADS", "2"]


@pytest.fixture(scope="module")
def model():
    return clip_model(*_SMALL)


def _total(model, rows):
    losses = model.train()(rows)
    assert all(torch.isfinite(loss) for loss in losses.values())
    model.zero_grad()
    sum(losses.values()).backward()
    return losses


@pytest.mark.parametrize(
    "opts",
    [
        [],
        ["MODEL.BATFD.RELATION_BLOCK", "False"],
        ["MODEL.BATFD.CBG_WEIGHT", "0.01"],
        ["MODEL.BATFD.FIT", "stretch"],
        ["MODEL.BATFD.ERF.DILATIONS", "[1, 2]", "MODEL.BATFD.DURATIONS", "1:8,12:32:4"],
        _UMMA,
        [*_UMMA, "MODEL.BATFD.HEAD", "points", "MODEL.BATFD.NUM_FRAMES", "40"],
    ],
    ids=["plus", "plain", "curves", "stretch", "erf", "umma", "points"],
)
def test_every_parameter_learns_and_segments_come_out(opts, make_clip_row):
    model = clip_model(*_SMALL, *opts)
    for fakes in ((True, False), (False, False)):  # a batch in which nothing is forged must reach them all, too
        rows = [make_clip_row(i, fake=fake, frames=20 + 7 * i) for i, fake in enumerate(fakes)]
        _total(model, rows)
        assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    for frames in (1, 20, model.options.frames + 1):
        row = make_clip_row(5, frames=frames)
        (output,) = model.eval()([{k: v for k, v in row.items() if "segments" not in k and k != "is_fake"}])
        assert 0 <= output["fake_score"] <= 1
        confidence, start, end = output["segments"].T
        assert ((start >= 0) & (start < end) & (end <= frames / 25 + 1e-9)).all()
        assert (confidence.diff() <= 0).all()
        assert {m: len(c) for m, c in output["frame_scores"].items()} == {"video": frames, "audio": frames}


def test_a_row_has_the_prediction_that_it_has_alone(model, make_clip_row):
    rows = [make_clip_row(i, frames=18 + 9 * i) for i in range(2)]
    together = model.eval()(rows)
    for row, output in zip(rows, together, strict=True):
        (alone,) = model([row])
        assert alone["fake_score"] == output["fake_score"]
        assert torch.equal(alone["segments"], output["segments"])


def test_a_clip_without_sound_is_judged_by_its_picture(model, make_clip_row):
    silent = make_clip_row(1, sound=False)
    (output,) = model.eval()([silent])
    assert set(output["frame_scores"]) == {"video"}
    # Whatever the audio tensor holds.
    (other,) = model([silent | {"audio": torch.randn(640 * 20)}])
    assert other["fake_score"] == pytest.approx(output["fake_score"], abs=1e-6)


def test_a_clip_without_sound_teaches_nothing_about_sound(model, make_clip_row):
    rows = [make_clip_row(i, fake=False, sound=False) for i in range(2)]
    losses = _total(model, rows)
    assert losses["loss_audio_frames"] == 0
    assert losses["loss_audio_map"] == 0
    assert losses["loss_contrast"] == 0
    assert losses["loss_video_frames"] > 0


def test_a_fake_whose_segments_are_not_known_teaches_no_segments(model, make_clip_row):
    row = {k: v for k, v in make_clip_row(0).items() if "segments" not in k}
    losses = _total(model, [row, row])
    assert {name for name, loss in losses.items() if loss != 0} <= {"loss_contrast"}
    with_one_known = _total(model, [row, make_clip_row(1)])
    alone = _total(model, [make_clip_row(1), make_clip_row(1)])
    assert with_one_known.keys() == alone.keys()


def test_new_parts_leave_the_outputs_as_they_are(make_clip_row):
    """Weights of BA-TFD+ load into its extensions, and give what they gave (gamma and the projection are 0)."""
    plain = clip_model(*_SMALL)
    row = make_clip_row(3)
    (want,) = plain([row])
    for opts in (["MODEL.BATFD.ERF.DILATIONS", "[1, 2]"], _UMMA):
        extended = clip_model(*_SMALL, *opts)
        missing, unexpected = extended.load_state_dict(plain.state_dict(), strict=False)
        assert missing
        assert not unexpected
        (found,) = extended.eval()([row])
        assert found["fake_score"] == pytest.approx(want["fake_score"], abs=1e-6)


def test_windows_cover_a_clip_and_end_with_it():
    assert window_starts(32, 32, 0.5) == [0]
    assert window_starts(33, 32, 0.5) == [0, 1]
    assert window_starts(80, 32, 0.5) == [0, 16, 32, 48]
    assert window_starts(70, 32, 0.0) == [0, 32, 38]


def test_windows_are_put_together():
    one = WindowPrediction(candidates=np.array([[0.9, 1.0, 3.0]]), frame_scores={"video": torch.tensor([0.0, 0.5])})
    two = WindowPrediction(candidates=np.array([[0.8, 0.0, 2.0]]), frame_scores={"video": torch.tensor([1.0, 1.0])})
    found = merged([one, two], [0, 1], 3)
    assert found.candidates.tolist() == [[0.9, 1, 3], [0.8, 1, 3]]
    assert found.frame_scores["video"].tolist() == [0, 0.75, 1]


def test_a_long_clip_is_seen_in_windows_of_bounded_size(model, make_clip_row):
    """The network never sees more than T frames, and each window is cut out of the row only when its turn has come."""
    seen = []
    encode = model.encode

    def watched(video, log_mel, valid):
        seen.append((tuple(video.shape[2:3]), log_mel.shape[-1]))
        return encode(video, log_mel, valid)

    model.eval().encode = watched
    try:
        (output,) = model([make_clip_row(2, frames=100)])
    finally:
        del model.encode
    assert seen == [((32,), 128)] * 6  # 0, 16, 32, 48, 64, 68
    assert len(output["frame_scores"]["audio"]) == 100
    assert output["segments"][:, 2].max() <= 4


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        (["MODEL.BATFD.VIDEO_ENCODER", "mvit"], "VIDEO_ENCODER is 'mvit'"),
        (["MODEL.BATFD.AUDIO_ENCODER", "ast"], "AUDIO_ENCODER is 'ast'"),
        (["MODEL.BATFD.DURATIONS", "3:1"], "DURATIONS is '3:1'"),
        (["MODEL.BATFD.DURATIONS", "1:64"], "up to 64 frames"),
        (["MODEL.BATFD.COMPAT", "old"], "COMPAT is 'old'"),
        (["MODEL.BATFD.HEAD", "points"], "UMMA.ENABLED"),
        (["TEST.TEMPORAL.DECODE", "old"], "DECODE is 'old'"),
        (["TEST.TEMPORAL.WINDOW_OVERLAP", "1.0"], "WINDOW_OVERLAP is 1"),
    ],
)
def test_a_wrong_value_is_told_by_its_key(opts, words):
    with pytest.raises(ConfigError, match=words):
        clip_model(*_SMALL, *opts)


def test_bfloat16_is_finite(model, make_clip_row):
    row = make_clip_row(4, frames=32)
    (want,) = model.eval()([row])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (found,) = model([row])
        losses = _total(model, [row, make_clip_row(5, fake=False)])
    assert torch.isfinite(found["segments"]).all()
    assert found["fake_score"] == pytest.approx(want["fake_score"], abs=0.05)
    assert losses
    assert dataclasses.is_dataclass(model.decode)
