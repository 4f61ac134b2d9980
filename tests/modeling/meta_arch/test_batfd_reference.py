"""BA-TFD and BA-TFD+ compute what the published code computes, from checkpoints in its key names."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ddl_d2.checkpoint.loading import load_weights
from ddl_d2.errors import CheckpointError
from ddl_d2.modeling.batfd.boundary_curves import boundary_weights
from ddl_d2.modeling.batfd.boundary_maps import mean_map
from ddl_d2.modeling.batfd.clip_batch import GROUPS, MODALITIES, ClipTruth, clip_truth
from ddl_d2.modeling.batfd.decoding import candidates_of_map
from ddl_d2.modeling.batfd.losses import boundary_losses, contrast_loss, frame_loss, map_loss
from tests.modeling.meta_arch.batfd_cases import clip_model

_PUBLISHED = ["MODEL.BATFD.COMPAT", "published", "TEST.TEMPORAL.DECODE", "published"]
# The three clips of the small files: frames, and what is forged in picture and in sound, seconds.
_BOTH = [[0.2, 0.44], [0.72, 0.9]]
_CLIPS = [(28, _BOTH, _BOTH), (32, [], []), (25, [], [[0.5, 0.76]])]
_LOSSES = {"fusion": "fusion", "video": "v", "audio": "a"}


class Case:
    """A model with the published weights, its outputs for the reference inputs, and the golden file."""

    def __init__(self, reference, name, opts, *, batch=3, config="lav_df/batfd_plus.yaml", mask=None):
        self.golden = np.load(reference.folder / f"{name}.npz")
        self.model = clip_model(*_PUBLISHED, *opts, config=config)
        reference.fill_by_name(self.model.state_dict())
        self.keys = [line.split(" ")[0] for line in (reference.folder / f"{name}.keys.txt").read_text().splitlines()]
        frames = self.model.options.frames
        self.video, self.log_mel = reference.reference_video(batch, frames), reference.reference_log_mel(batch, frames)
        if mask:
            mask(self.video, self.log_mel)
        self.encoded = self.model.encode(self.video, self.log_mel, torch.ones(batch, frames))
        self.maps = self.model.maps(self.encoded)

    def agrees(self, key, value, atol=1e-5):
        np.testing.assert_allclose(value.detach().numpy(), self.golden[key], atol=atol, rtol=0, err_msg=key)

    def has_the_published_keys(self):
        unused = {key for key in self.keys if "_comp_boundary_generator" in key and not self.model.options.curve_weight}
        assert set(self.model.state_dict()) == set(self.keys) - unused

    def truth(self):
        return ClipTruth(
            maps={g: torch.from_numpy(self.golden[f"target/{g}_map"]) for g in GROUPS},
            labels={m: torch.from_numpy(self.golden[f"target/{m}_frames"]) for m in MODALITIES},
            curves={
                g: tuple(torch.from_numpy(self.golden[f"target/{g}_{side}"]) for side in ("start", "end"))
                for g in GROUPS
                if f"target/{g}_start" in self.golden
            },
            known=dict.fromkeys(GROUPS, torch.ones(3)),
            valid=(
                torch.arange(self.model.options.frames) < torch.from_numpy(self.golden["target/n_frames"])[:, None]
            ).float(),
            real=torch.from_numpy(self.golden["target/contrast"]).float(),
        )

    def losses(self, truth):
        share = torch.full((len(truth.real),), 1 / len(truth.real))
        found = {f"{_LOSSES[g]}_bm_loss": map_loss(self.maps[g], truth.maps[g], truth.valid, share) for g in GROUPS}
        for m in MODALITIES:
            found[f"{m[0]}_frame_loss"] = frame_loss(self.encoded.logits[m], truth.labels[m], truth.valid, share)
        found["contrast_loss"] = contrast_loss(
            *self.encoded.features.values(), truth.valid, truth.real, share, margin=0.99, scaling="exact"
        )
        return found

    def losses_agree(self, found):
        for key, value in found.items():
            np.testing.assert_allclose(float(value), self.golden[f"loss/{key}"], rtol=1e-5, err_msg=key)


def _rows(clips):
    """Rows as far as targets need them."""
    rows = []
    for frames, video, audio in clips:
        both = [s for s in video if s in audio] + [s for s in (*video, *audio) if not (s in video and s in audio)]
        as_frames = {"segments": both, "video_segments": video, "audio_segments": audio}
        rows.append(
            {key: torch.tensor(value, dtype=torch.float64).reshape(-1, 2) * 25 for key, value in as_frames.items()}
            | {"num_frames": frames, "is_fake": int(bool(both))}
        )
    return rows


@pytest.fixture(scope="module")
def plus(batfd_reference):
    return Case(batfd_reference, "s5_batfd_plus_small", [])


@pytest.fixture(scope="module")
def plain(batfd_reference):
    opts = ["MODEL.BATFD.VIDEO_ENCODER", "c3d", "MODEL.BATFD.AUDIO_ENCODER", "cnn"]
    return Case(batfd_reference, "s5_batfd_small", opts, config="lav_df/batfd.yaml")


@pytest.fixture(scope="module")
def stretched(batfd_reference):
    opts = ["MODEL.BATFD.NUM_FRAMES", "100", "MODEL.BATFD.DURATIONS", "1:30", "MODEL.BATFD.FIT", "stretch"]
    return Case(batfd_reference, "s5_batfd_plus_av1m", opts)


def test_batfd_plus(plus):
    plus.has_the_published_keys()
    for modality in MODALITIES:
        plus.agrees(f"out/{modality}_features", plus.encoded.features[modality], atol=2e-5)
        plus.agrees(f"out/{modality}_frame_logits", plus.encoded.logits[modality])
    for group in GROUPS:
        for kind, value in plus.maps[group].items():
            plus.agrees(f"out/{group}_{kind}", value)
        plus.agrees(f"predict/{group}_map", mean_map(plus.maps[group]))


def test_targets_and_losses_of_batfd_plus(plus):
    truth = clip_truth(
        _rows(_CLIPS), plus.model.fit, plus.model.durations, with_curves=False, device=torch.device("cpu")
    )
    for group in GROUPS:
        plus.agrees(f"target/{group}_map", truth.maps[group], atol=1e-6)
    for modality in MODALITIES:
        plus.agrees(f"target/{modality}_frames", truth.labels[modality], atol=0)
    plus.losses_agree(plus.losses(truth))


def test_gradients_of_batfd_plus(plus):
    plus.model.zero_grad()
    found = plus.losses(plus.truth())
    maps, frames = found["fusion_bm_loss"] + (found["v_bm_loss"] + found["a_bm_loss"]) / 2, 0
    frames = found["v_frame_loss"] + found["a_frame_loss"]
    total = maps + frames + 0.1 / (256 * 32) * found["contrast_loss"]
    np.testing.assert_allclose(float(total), plus.golden["loss/loss"], rtol=1e-5)
    total.backward(retain_graph=True)
    for name, parameter in plus.model.named_parameters():
        if f"grad_norm/{name}" in plus.golden:
            want = plus.golden[f"grad_norm/{name}"]
            np.testing.assert_allclose(float(parameter.grad.norm()), want, rtol=1e-4, err_msg=name)


def test_batch_statistics_of_batfd_plus(plus, batfd_reference):
    model = clip_model(*_PUBLISHED)
    batfd_reference.fill_by_name(model.state_dict())
    norm = model.video_boundary_module.proposal_block.conv0_0[1]
    model.train()
    features = {m: torch.from_numpy(plus.golden[f"out/{m}_features"]) for m in MODALITIES}
    logits = {m: torch.from_numpy(plus.golden[f"out/{m}_frame_logits"]) for m in MODALITIES}
    seen = {m: torch.cat([features[m], logits[m]], dim=1) for m in MODALITIES}
    with torch.no_grad():
        maps = model.maps(type(plus.encoded)(features=features, logits=logits, seen=seen))
    for group in ("fusion", "video"):
        for kind, value in maps[group].items():
            plus.agrees(f"train/{group}_{kind}", value)
    prefix = "train/video_boundary_module.proposal_block.conv0_0.1"
    plus.agrees(f"{prefix}.running_mean", norm.running_mean)
    plus.agrees(f"{prefix}.running_var", norm.running_var)


def test_segments_of_batfd_plus(plus):
    for clip, (frames, *_) in enumerate(_CLIPS):
        fused = plus.golden["predict/fusion_map"][clip]
        candidates = candidates_of_map(fused, plus.model.durations, frames, decode="published")
        np.testing.assert_allclose(candidates[:, [1, 2, 0]], plus.golden[f"nms/{clip}/candidates"], atol=1e-6)
        kept = plus.model.decode.suppressed(candidates, 1 / 25)
        np.testing.assert_allclose(kept, plus.golden[f"nms/{clip}/kept"], atol=1e-6)


def test_batfd(plain):
    plain.has_the_published_keys()
    for modality in MODALITIES:
        plain.agrees(f"out/{modality}_features", plain.encoded.features[modality][:, ::4], atol=2e-5)
        plain.agrees(f"out/{modality}_frame_logits", plain.encoded.logits[modality])
    for group in GROUPS:
        plain.agrees(f"out/{group}_map", plain.maps[group]["map"])
    truth = clip_truth(
        _rows(_CLIPS), plain.model.fit, plain.model.durations, with_curves=False, device=torch.device("cpu")
    )
    plain.losses_agree(plain.losses(truth))


def test_the_boundary_generator(batfd_reference):
    case = Case(batfd_reference, "s5_batfd_plus_cbg_small", ["MODEL.BATFD.CBG_WEIGHT", "0.01"])
    case.has_the_published_keys()
    forward = case.model.curves(case.encoded)
    backward = case.model.curves(case.model._backward(case.video, case.log_mel, torch.ones(3, 32)))
    for group in GROUPS:
        for i, side in enumerate(("start", "end")):
            case.agrees(f"out/{group}_{side}", forward.curves[group][i])
            combined = boundary_weights(forward.curves[group], backward.curves[group])[i]
            case.agrees(f"predict/{group}_{side}", combined)
    for modality in MODALITIES:
        case.agrees(f"out/{modality}_cbg_features", forward.hidden[modality][:, ::48], atol=2e-5)
    truth = case.truth()
    shares = dict.fromkeys(GROUPS, torch.full((3,), 1 / 3))
    losses = boundary_losses(forward, backward, truth, shares, feature_weight=0.01)
    case.losses_agree({f"{_LOSSES[group]}_cbg_loss": loss for group, loss in losses.items()})


def test_batfd_plus_of_av_deepfake1m(stretched):
    stretched.has_the_published_keys()
    for modality in MODALITIES:
        stretched.agrees(f"out/{modality}_features", stretched.encoded.features[modality][:, ::16], atol=2e-5)
    for group in GROUPS:
        for kind, value in stretched.maps[group].items():
            stretched.agrees(f"out/{group}_{kind}", value[:, ::2, ::3])
    stretched.losses_agree(stretched.losses(stretched.truth()))


def test_a_checkpoint_of_the_published_code_loads(plus, tmp_path):
    """A Lightning file, with the boundary generator that the published config does not use, but keeps."""
    state = {key: value.clone() for key, value in plus.model.state_dict().items()}
    unused = {key: torch.zeros(1) for key in plus.keys if "_comp_boundary_generator" in key}
    path = tmp_path / "batfd_plus.ckpt"
    torch.save({"state_dict": state | unused, "pytorch-lightning_version": "1.7.0", "epoch": 3}, path)
    model = clip_model(*_PUBLISHED)
    report = load_weights(model, path)
    assert not report.missing
    assert set(report.unused) == set(unused)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    with pytest.raises(CheckpointError, match=r"COMPAT published and TEST\.TEMPORAL\.DECODE published"):
        load_weights(clip_model(), path)


@pytest.mark.slow
def test_batfd_plus_of_published_size(batfd_reference):
    def end(video, log_mel):
        video[:, :, 300:] = 0
        log_mel[:, :, 1200:] = np.log(0.01)

    opts = ["MODEL.BATFD.VIDEO_ENCODER", "mvit_b", "MODEL.BATFD.AUDIO_ENCODER", "vit_b"]
    opts += ["MODEL.BATFD.NUM_FRAMES", "512", "MODEL.BATFD.DURATIONS", "1:40"]
    with torch.no_grad():
        case = Case(batfd_reference, "s5_batfd_plus_published", opts, batch=1, mask=end)
    case.has_the_published_keys()
    for modality in MODALITIES:
        case.agrees(f"out/{modality}_features", case.encoded.features[modality][0, ::16], atol=2e-5)
        case.agrees(f"out/{modality}_frame_logits", case.encoded.logits[modality][0])
    for group in GROUPS:
        for kind, value in case.maps[group].items():
            case.agrees(f"out/{group}_{kind}", value[0, ::3, ::4])
    forged = [[2, 3.1], [7.48, 8]]
    truth = clip_truth(
        _rows([(300, forged, forged)]),
        case.model.fit,
        case.model.durations,
        with_curves=False,
        device=torch.device("cpu"),
    )
    case.losses_agree(case.losses(truth))
    fused = mean_map(case.maps["fusion"])[0].numpy()
    candidates = candidates_of_map(fused, case.model.durations, 300, decode="published")
    np.testing.assert_allclose(case.model.decode.suppressed(candidates, 1 / 25), case.golden["nms/kept"], atol=1e-5)
