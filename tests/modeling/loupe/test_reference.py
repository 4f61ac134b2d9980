"""The network computes what the published Loupe computes, array by array, from weights in its names.

`shared/reference/loupe/README.md` says what each array is and how it was cut. Errors are relative to the largest value.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ddl_d2.checkpoint.loupe_names import from_published_loupe
from ddl_d2.modeling.loupe.targets import query_targets
from ddl_d2.modeling.mask2former import criterion as criterion_module
from ddl_d2.modeling.mask2former import matcher as matcher_module
from tests.modeling.loupe.published import filling, published_loupe, published_rows, published_weights

_TOLERANCE, _OF_GRADIENTS = 1e-4, 5e-4
_CUT = {"small": (16, 1), "l14": (64, 2)}
_GRID = {"small": 16, "l14": 112}
_CONDITIONS = {"none": None, "0": 0.0, "037": 0.37, "1": 1.0, "mixed": (1.0, 0.0, 0.37)}
_LEVELS = {"x05": "res5", "x1": "res4", "x2": "res3", "x4": "res2"}


class Run:
    """The published network here, its batch, and what is known of it."""

    def __init__(self, shared, name: str) -> None:
        self.name, self.shared = name, shared
        self.fill = filling(shared)
        self.expected = np.load(shared / "reference" / "loupe" / f"loupe_{name}.npz")
        self.model = published_loupe(shared, name)
        self.rows = published_rows(shared, name)
        self.points = self.fill.grid_points(_GRID[name])
        with torch.no_grad():
            self.tokens = self.model.tokens(self.rows)
            self.logits = self.model.classifier(self.tokens)
        self.truth = torch.tensor([float(row["is_fake"]) for row in self.rows])
        self.score = self.logits.image.sigmoid()

    def agrees(self, array: str, got, tolerance: float = _TOLERANCE) -> None:
        """Compare with an array, and with what is known of the whole tensor that it was cut from."""
        got, expected = np.asarray(got), self.expected[array]
        c, s = _CUT[self.name]
        cut = got
        if array == "tokens" and self.name == "l14":
            cut = got[:, ::24, ::16]
        elif array.startswith(("pyramid_x4", "pyramid_x2")) or array.endswith(("_mask_features", "_x2")):
            cut = got[:, ::c, ::s, ::s]
        elif array.startswith(("pyramid_", "pixel_")):
            cut = got[:, ::c]
        elif array.endswith("_mask_logits") and self.name == "l14":
            got = got[-1]
            cut = got[:, ::5, ::2, ::2]
        elif array[:4] == "map_":
            cut = got[:: 2 * s, :: 2 * s]
        assert cut.shape == expected.shape, array
        error = np.abs(cut - expected).max() / np.abs(expected).max()
        assert error < tolerance, f"{array}: {error:.1e}"
        if f"{array}.stats" in self.expected:
            _, std, _, projection, count = self.expected[f"{array}.stats"]
            assert got.size == count, array
            error = abs(self.fill.projection(got) - projection) / (std * count**0.5)
            assert error < tolerance, f"{array}, all of it: {error:.1e}"


@pytest.fixture(scope="module", params=["small", pytest.param("l14", marks=pytest.mark.slow)])
def run(request, shared):
    return Run(shared, request.param)


@pytest.fixture
def points_on_the_grid(run, monkeypatch):
    """Masks are compared at the centers of a grid's cells, so that nothing is drawn."""
    grid = run.points[None]
    monkeypatch.setattr(matcher_module.torch, "rand", lambda *size, **options: grid)
    chosen = "get_uncertain_point_coords_with_randomness"
    monkeypatch.setattr(criterion_module, chosen, lambda masks, *rest: grid.expand(len(masks), -1, -1))


def test_encoder_and_classifier(run):
    tokens, logits = run.tokens, run.logits
    run.agrees("tokens", torch.cat([tokens.class_token[:, None], tokens.tokens], dim=1))
    run.agrees("pooled", tokens.pooled)
    run.agrees("global_logit", logits.whole[:, None])
    run.agrees("patch_logits", logits.patches)
    run.agrees("image_logit", logits.image[:, None])


@torch.no_grad()
def test_pyramid_and_pixel_decoder(run):
    segmentor = run.model.segmentor
    pyramid = segmentor.pyramid(run.tokens.map())
    for scale, level in _LEVELS.items():
        run.agrees(f"pyramid_{scale}", pyramid[level])
    for case, value in _CONDITIONS.items():
        condition = None
        if value is not None:
            fake = torch.tensor(value).expand(len(run.rows)) if isinstance(value, float) else torch.tensor(value)
            fake = fake[: len(run.rows)]
            run.agrees(f"condition_{case}", fake, tolerance=1e-7) if case != "0" else None
            condition = segmentor.condition(fake)
        mask_features, levels = segmentor.head.pixel_decoder(pyramid, condition)
        run.agrees(f"pixel_{case}_mask_features", mask_features)
        for scale, level in zip(("x05", "x1", "x2"), levels, strict=True):
            run.agrees(f"pixel_{case}_{scale}", level)


@torch.no_grad()
def test_queries(run):
    for case, fake in (("truth", run.truth), ("score", run.score)):
        run.agrees(f"condition_{case}", fake)
        predictions = run.model.segmentor(run.tokens, fake)
        run.agrees(f"query_{case}_class_logits", torch.stack(predictions.logits))
        sets = range(len(predictions.logits))
        masks = np.stack([predictions.masks(layer).numpy() for layer in sets])
        run.agrees(f"query_{case}_mask_logits", masks)
        for layer in sets:
            std = run.expected[f"query_{case}_mask_std"][layer]
            assert masks[layer].std() == pytest.approx(std, rel=_TOLERANCE)
            error = run.fill.projection(masks[layer]) - run.expected[f"query_{case}_mask_projection"][layer]
            assert abs(error) / (std * masks[layer].size ** 0.5) < _TOLERANCE


def test_maps_and_scores(run):
    rows = [
        row | {"height": int(height), "width": int(width)}
        for row, (height, width) in zip(run.rows, run.expected["map_sizes"], strict=True)
    ]
    for b, output in enumerate(run.model(rows)):
        got = output["forgery_map"].numpy()
        s = 2 * _CUT[run.name][1]
        # The published sum may exceed 1.
        assert np.abs(got[::s, ::s] - run.expected[f"map_{b}"].clip(max=1)).max() < _TOLERANCE
        assert (got > 0.5).sum() == run.expected[f"map_{b}_forged_pixels"]
        assert output["fake_score"] == pytest.approx(float(run.score[b]), abs=1e-6)


def test_losses_and_gradients(run, points_on_the_grid):
    model, expected = run.model, run.expected
    model.zero_grad()
    losses = model.losses_of(model.tokens(run.rows), run.rows)
    values = {name: float(loss.detach()) for name, loss in losses.items()}
    assert values["loss_image"] / 2 == pytest.approx(float(expected["loss_image"]), rel=_TOLERANCE)
    assert values["loss_patch"] / 2 == pytest.approx(float(expected["loss_patch"]), rel=_TOLERANCE)
    _agree_of_segmentor(values, expected["loss_names"], expected["losses"])
    total = sum(losses.values())
    assert float(total.detach()) == pytest.approx(float(expected["loss_total"]), rel=_TOLERANCE)
    total.backward()
    norms = _published_norms(model, published_weights(run.shared, run.name))
    assert set(norms) == set(expected["grad_names"])
    floor = 1e-6 * float(expected["grad_total_norm"])
    for name, norm in zip(expected["grad_names"], expected["grad_norms"], strict=True):
        assert norms[name] == pytest.approx(norm, rel=_OF_GRADIENTS, abs=floor), name
    whole = sum(norm**2 for norm in norms.values()) ** 0.5
    assert whole == pytest.approx(float(expected["grad_total_norm"]), rel=_OF_GRADIENTS)


@torch.no_grad()
def test_matching(run, points_on_the_grid):
    model = run.model
    predictions = model.segmentor(run.tokens, run.truth)
    targets = _targets(run)
    logits, embeddings = torch.stack(predictions.logits), torch.stack(predictions.mask_embeddings)
    matches = model.criterion.matcher(logits, embeddings, predictions.mask_features, targets)
    for b, (query, _) in enumerate(matches):
        wanted = run.expected["matched_query"][:, b]
        assert query[:, 0].tolist() == wanted.tolist() if query.shape[1] else (wanted == -1).all()


@torch.no_grad()
def test_pseudo_labels(run, points_on_the_grid):
    labels = run.model.pseudo_labels(run.tokens)
    run.agrees("pseudo_condition", labels.condition)
    assert labels.has_target.int().tolist() == run.expected["pseudo_has_target"].tolist()
    targets = labels.targets(["?"] * len(run.rows))
    for b, target in enumerate(targets):
        wanted = run.expected[f"pseudo_mask_{b}"]
        assert target.masks.shape == wanted.shape
        assert np.allclose(target.masks, wanted, atol=1e-6)
        assert target.classes.tolist() == [0] * len(wanted)
    losses = run.model.segmentation_losses(run.tokens, labels.condition, targets)
    values = {name: float(loss) for name, loss in losses.items()}
    _agree_of_segmentor(values, run.expected["pseudo_loss_names"], run.expected["pseudo_losses"])
    assert sum(values.values()) == pytest.approx(float(run.expected["pseudo_loss_total"]), rel=_TOLERANCE)


@torch.no_grad()
def test_random_points_give_the_same_on_average(run):
    if run.name != "small":
        pytest.skip("known of the small network only")
    torch.manual_seed(0)
    predictions = run.model.segmentor(run.tokens, run.truth)
    targets, draws = _targets(run), []
    for _ in range(40):
        losses = run.model.criterion(predictions, targets)
        last = [losses["loss_mask"] / 5, losses["loss_dice"] / 5, losses["loss_ce"] / 2]
        draws.append([float(sum(losses.values())), *map(float, last)])
    mean, wanted = np.mean(draws, axis=0), run.expected["random_points_mean"]
    spread = run.expected["random_points_std"]
    assert abs(mean[0] - wanted[0]) < 0.03
    assert (np.abs(mean - wanted) < 4 * spread / 40**0.5 * 2**0.5 + 1e-6).all()


def test_a_batch_without_a_target_gives_no_loss_where_the_published_gives_none(run):
    if run.name != "small":
        pytest.skip("known of the small network only")
    reals = [row | {"instances": row["instances"][:0], "is_fake": 0} for row in run.rows]
    losses = run.model.losses_of(run.tokens, reals)
    mask, region, ce = run.expected["all_real_losses"]
    assert float(losses["loss_mask"]) == mask == 0
    assert np.isnan(region)
    assert float(losses["loss_dice"]) == 0
    assert float(losses["loss_ce"].detach()) / 2 == pytest.approx(ce, rel=_TOLERANCE)


def _targets(run):
    return query_targets(run.rows, run.model.size, torch.device("cpu"))


def _agree_of_segmentor(values, names, expected):
    """`values` are weighted, `expected` is not."""
    weights = {"ce": 2, "mask": 5, "dice": 5}
    wanted = {str(name).replace("cross_entropy", "ce"): value for name, value in zip(names, expected, strict=True)}
    assert {name for name in values if name.split("_")[1] in weights} == set(wanted)
    for name, value in wanted.items():
        assert values[name] / weights[name.split("_")[1]] == pytest.approx(value, rel=_TOLERANCE, abs=1e-7), name


def _published_norms(model, weights):
    """The gradients' lengths under the published names, several of which may be one parameter here, or parts of one."""
    names = [name for name in weights if not name.endswith("empty_weight")]
    numbered = {name: torch.full(weights[name].shape, i, dtype=torch.int32) for i, name in enumerate(names)}
    squares = np.zeros(len(names))
    owners = from_published_loupe(numbered)
    for name, parameter in model.named_parameters():
        grad = parameter.grad.double().square().flatten()
        squares += torch.bincount(owners[name].flatten().long(), weights=grad, minlength=len(names)).numpy()
    return {name.removeprefix("loupe."): square**0.5 for name, square in zip(names, squares, strict=True)}
