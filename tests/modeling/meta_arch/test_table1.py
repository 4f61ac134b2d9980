"""The segmentors compute what the published codes compute, from checkpoints in their key names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from detectron2.modeling import build_model
from torch import nn

from ddl_d2.checkpoint.loading import load_weights
from ddl_d2.checkpoint.segmentor_names import from_published_segmentor
from ddl_d2.data.datasets import load_config
from ddl_d2.modeling.heads import valid_average
from ddl_d2.modeling.losses import edge_bar, map_bce
from ddl_d2.modeling.test_time.folding import fold_norms
from tests.conftest import ROOT
from tests.modeling.meta_arch.published import REFERENCE
from tests.modeling.meta_arch.table1 import drawn, table1_checkpoint, table1_rows

pytest.importorskip("transformers")

_FULL_SIZE = ["MODEL.DEVICE", "cpu", "MODEL.TIMM.PRETRAINED", "", "MODEL.WEIGHTS", "",
              "MODEL.MIX_TRANSFORMER.PRETRAINED", "", "MODEL.PLAIN_VIT.PRETRAINED", ""]  # fmt: skip
_TOLERANCE = 1e-5  # of an array's largest value; the published codes themselves are within 3e-6 in fp32
_IMAGE_HEAD = ["image_head.linear.weight", "image_head.linear.bias"]


@dataclass(frozen=True)
class Case:
    name: str
    config: str
    opts: tuple[str, ...] = ()
    sizes: tuple[int, int, int] = (96, 160, 130)
    unused: tuple[str, ...] = ()
    parameters: int = 0


_VIT_SIZES = (192, 256, 210)
_B0 = ("MODEL.MIX_TRANSFORMER.NAME", "mit_b0")
# IML-ViT has no image head in the config, but in the reference.
_WITH_HEAD = ("MODEL.DETECTION.ENABLED", "True", "MODEL.DETECTION.IN_FEATURES", "['p4']")
_SAM_PROMPTS = (
    "prompt_encoder.point_embeddings",
    "prompt_encoder.not_a_point_embed",
    "prompt_encoder.mask_downscaling",
)
# Of SAM's prompt encoder, 6,220 parameters, there is only the embedding of "no mask".
_SAM_PARAMETERS = 93_735_472 - 6_220 + 256
CASES = [
    Case("hrnet_w18s", "hrnet_w18", ("MODEL.TIMM.NAME", "hrnet_w18_small_v2")),
    Case("segformer_b0", "segformer_b5", _B0, parameters=3_715_682),
    Case("hrnet_w18", "hrnet_w18", parameters=9_636_242),
    Case("upernet_swin_tiny", "upernet_swin_tiny", parameters=59_827_902),
    Case("segformer_b5", "segformer_b5", parameters=81_970_370),
    Case("sam_vit_b", "sam_vit_base", (), _VIT_SIZES, _SAM_PROMPTS, parameters=_SAM_PARAMETERS),
    Case("iml_vit", "iml_vit", _WITH_HEAD, _VIT_SIZES, parameters=91_777_729),
]


def _build(case: Case, *opts: str) -> nn.Module:
    return build_model(load_config(ROOT / f"configs/ddl_i/{case.config}.yaml", [*_FULL_SIZE, *case.opts, *opts]))


def _folder(name: str, request: pytest.FixtureRequest) -> Path:
    """Two small references come with the repository, the others lie beside it."""
    if (REFERENCE / f"{name}.npz").is_file():
        return REFERENCE
    return request.getfixturevalue("shared") / "reference" / "table1"


@dataclass
class Loaded:
    case: Case
    model: nn.Module
    rows: list[dict]
    want: dict[str, np.ndarray]

    @property
    def images(self):
        return _padded(self.model, self.rows)

    @property
    def image_sizes(self):
        height, first, second = self.case.sizes
        return [(height, first), (height, second)]


def _padded(model, rows):
    images = [(row["image"].float() - model.pixel_mean) / model.pixel_std for row in rows]
    width = max(image.shape[2] for image in images)
    return torch.stack([F.pad(image, (0, width - image.shape[2])) for image in images])


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def loaded(request, tmp_path_factory):
    case = request.param
    folder = _folder(case.name, request)
    path = tmp_path_factory.mktemp("published") / "published.pth"
    torch.save({"state_dict": table1_checkpoint(folder / f"{case.name}.keys.txt")}, path)
    model = _build(case).eval()
    report = load_weights(model, path, allow_partial=True)
    path.unlink()
    assert report.missing == _IMAGE_HEAD
    assert report.misshapen == []
    assert all(key.startswith(case.unused) for key in report.unused), report.unused
    with torch.no_grad():
        for name in _IMAGE_HEAD:
            parameter = model.get_parameter(name)
            parameter.copy_(torch.from_numpy(drawn(name, tuple(parameter.shape))))
    return Loaded(case, model, table1_rows(*case.sizes), dict(np.load(folder / f"{case.name}.npz")))


def test_published_size(loaded):
    if loaded.case.parameters:
        mine = [p for name, p in loaded.model.named_parameters() if name not in _IMAGE_HEAD]
        assert sum(p.numel() for p in mine) == loaded.case.parameters


def test_features_and_maps(loaded):
    model = loaded.model.eval()
    with torch.no_grad():
        features = model.backbone(loaded.images)
        got = {name: _thinned(name, value) for name, value in features.items()}
        got["logits"] = model.sem_seg_head(features)
        got["det_logits"] = model.image_logits(features, loaded.image_sizes)
        if model.auxiliary_head is not None:
            got["aux_logits"] = model.auxiliary_head(features)
        if loaded.case.name == "sam_vit_b":
            got["embedding"] = features["p4"][:, ::16]
            got["positions"] = model.sem_seg_head.positions(12, 16)[:, ::16]
    compared = set(got) & set(loaded.want)
    assert {"logits", "det_logits"} < compared
    for name in compared:
        want = loaded.want[name]
        value = got[name].numpy().reshape(want.shape)
        # HRNet's logits of images lie near 0, so there 1e-6 counts, too.
        assert np.abs(value - want).max() < max(_TOLERANCE * np.abs(want).max(), 1e-6), name


def _thinned(name, feature):
    """What the references keep of a feature: every so many channels."""
    return feature[:, :: feature.shape[1] // (4 if name.startswith("p") else 8)]


def test_prediction(loaded):
    """The first image; the second is padded otherwise where it is seen alone."""
    prediction = loaded.model.eval()(loaded.rows[:1])[0]
    error = np.abs(prediction["forgery_map"][::4, ::4].numpy() - loaded.want["map"][0]).max()
    assert error < _TOLERANCE
    wanted = 1 / (1 + np.exp(-loaded.want["det_logits"][0]))
    assert prediction["fake_score"] == pytest.approx(wanted, abs=1e-6)


@pytest.fixture
def two_threads():
    """With one, 1 × 1 convolutions go another way, whose rounding moves HRNet's loss by 1e-4."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_losses_and_gradient(loaded):
    model = _without_chance(loaded.model).train()
    losses = model(loaded.rows)
    want = loaded.want
    wanted = {"loss_map": want["train_loss_ce" if "train_loss_ce" in want else "train_loss_bce"]}
    wanted["loss_det"] = 0.1 * want["train_loss_det"]
    if "train_loss_edge" in want:
        wanted["loss_edge"] = want["train_loss_edge"]
    others = want["train_loss"] - sum(wanted.values())
    if "aux_logits" in want:
        wanted["loss_aux"] = others
    assert set(losses) == set(wanted)
    hrnet = loaded.case.name.startswith("hrnet")  # see test_gradient_of_hrnet
    for name, value in losses.items():
        assert value.item() == pytest.approx(float(wanted[name]), rel=1e-4 if hrnet else _TOLERANCE), name
    if not hrnet:
        model.zero_grad()
        sum(losses.values()).backward()
        # Other numbers of threads add up in another order: UperNet's length then moves by 7e-5.
        assert _gradient_length(model) == pytest.approx(_published_length(want), rel=1e-4)


def test_gradient_of_hrnet(request):
    """In fp64: its batch norms see 15 places here, which makes the gradient ill-conditioned (1e-3 in fp32)."""
    case = CASES[0]
    model = _build(case)
    published = table1_checkpoint(_folder(case.name, request) / f"{case.name}.keys.txt")
    _fill(model, published)
    rows, want = table1_rows(*case.sizes), np.load(_folder(case.name, request) / f"{case.name}.npz")
    sizes = [tuple(row["image"].shape[1:]) for row in rows]
    images = _padded(model, rows).double()
    model = model.double().train()
    features = model.backbone(images)
    logits = F.interpolate(model.sem_seg_head(features), (96, 160), mode="bilinear")
    truth = torch.zeros(2, 96, 160, dtype=torch.float64)
    truth[0] = rows[0]["forgery_mask"]
    valid = torch.ones(2, 96, 160, dtype=torch.bool)
    valid[1, :, 130:] = False
    loss = map_bce(logits[:, 1] - logits[:, 0], truth, valid).mean()
    head = model.image_head
    pooled = torch.cat(
        [valid_average(features[n], sizes, s) for n, s in zip(head.in_features, head.strides, strict=True)], dim=1
    )
    labels = torch.tensor([1.0, 0.0], dtype=torch.float64)
    loss = loss + 0.1 * F.binary_cross_entropy_with_logits(head.linear(pooled)[:, 0], labels)
    assert loss.item() == pytest.approx(float(want["train_loss"]), rel=1e-9)
    loss.backward()
    assert _gradient_length(model) == pytest.approx(_published_length(want), rel=1e-6)


def _fill(model, published):
    head = {name: torch.from_numpy(drawn(name, tuple(model.get_parameter(name).shape))) for name in _IMAGE_HEAD}
    missing, unexpected = model.load_state_dict(from_published_segmentor(published) | head, strict=False)
    assert all(key.endswith("num_batches_tracked") for key in missing)
    assert all(key.startswith(_SAM_PROMPTS) for key in unexpected)


def _without_chance(model):
    for module in model.modules():
        if isinstance(module, (nn.Dropout, nn.Dropout2d)):
            module.p = 0.0
        if hasattr(module, "drop_prob"):
            module.drop_prob = 0.0
    return model


def _gradient_length(model):
    """Of all parameters but the image head's, which the published codes lack."""
    squares = [
        p.grad.double().square().sum().item()
        for name, p in model.named_parameters()
        if p.requires_grad and name not in _IMAGE_HEAD
    ]
    return sum(squares) ** 0.5


def _published_length(want):
    return np.sqrt(np.nansum(want["grad_norms"].astype(np.float64) ** 2))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES[-2:], ids=lambda case: case.name)
def test_at_the_size_of_the_releases(case, shared):
    folder = shared / "reference" / "table1"
    model = _build(case).eval()
    _fill(model, table1_checkpoint(folder / f"{case.name}.keys.txt"))
    want = np.load(folder / f"{case.name}_1024.npz")
    with torch.no_grad():
        features = model.backbone(_padded(model, table1_rows(1024, 1024, 1024)[:1]))
        logits = model.sem_seg_head(features)[0, 0, ::2, ::2].numpy()
    assert np.abs(logits - want["logits"].squeeze()).max() < _TOLERANCE * np.abs(want["logits"]).max()


def test_two_classes_are_one_logit():
    """Softmax cross-entropy over authentic and forged is the binary one of the difference."""
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 2, 5, 7), torch.randint(0, 2, (2, 5, 7))
    want = F.cross_entropy(logits, labels, reduction="none").flatten(1).mean(1)
    got = map_bce(logits[:, 1] - logits[:, 0], labels.float(), torch.ones_like(labels, dtype=torch.bool))
    torch.testing.assert_close(got, want)


def test_edge_bar_of_the_published_code(shared):
    want = np.load(shared / "reference" / "table1" / "iml_vit.npz")
    mask = torch.from_numpy(want["tricky_mask"])[None]
    assert np.array_equal(edge_bar(mask, torch.ones_like(mask), 7)[0].numpy(), want["tricky_edge"])
    disc = table1_rows(*_VIT_SIZES)[0]["forgery_mask"][None]
    assert np.array_equal(edge_bar(disc, torch.ones_like(disc), 7)[0].numpy(), want["edge"])


@pytest.mark.parametrize("config", ["hrnet_w18", "upernet_swin_tiny"])
def test_outputs_stay_once_norms_are_folded(tiny_cfg, make_row, config):
    torch.manual_seed(0)
    model = build_model(tiny_cfg(config=f"ddl_i/{config}.yaml")).train()
    for _ in range(3):
        model([make_row(0), make_row(1)])  # running statistics that are not 0 and 1
    before = model.eval()([make_row(0)])[0]["forgery_map"]
    fold_norms(model)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.sem_seg_head.modules())
    torch.testing.assert_close(model([make_row(0)])[0]["forgery_map"], before, rtol=1e-4, atol=1e-5)
