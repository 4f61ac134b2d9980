"""Predicting an image from its face crops instead of the whole, by any system.

It takes rows with `crops` (the testing rows of `ForgeryDatasetMapper` with a `crop` function; INPUT.FACE_CROP). The
system gets ordinary rows, one for each crop.

Shapes: `H, W` pixels of the whole image, `h, w` those of a window, `N` instances.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from detectron2.structures import Instances
from torch import Tensor, nn

from ddl_d2.errors import ConfigError
from ddl_d2.modeling.postprocessing import Size
from ddl_d2.modeling.test_time.windows import OnWindows, Window, inside, window_row
from ddl_d2.utils.scores import FACE_SCORES, face_score


class OnFaceCrops(OnWindows):
    """A system that predicts each face crop of an image, and puts the predictions together.

    In eval mode a row with `crops` (each `image` uint8 3×h'×w' and `window`), `height` and `width` gives what every
    system gives, at the size of the image: `fake_score` from those of its crops, `forgery_map` with the crops' maps
    pasted (the highest where they overlap, 0 outside), `instances` with the crops' masks pasted (no more than
    `max_instances`, those of the highest scores), and besides `faces`: {`window`, `fake_score`} of each crop, and
    `has_face` if the row has it: False where no face was found and the only crop is the whole image.

    With TEST.UNCERTAINTY also `reliability_map` (1 outside the crops, the lowest where they overlap) and
    `score_spread`, that of the crop whose score varies most.

    Probabilities are pasted. The released code of LFDL thresholds each face's map first and so dilates it a little;
    here, masks are dilated or closed where they are fused (`fusion/morphology.py`).
    """

    def __init__(
        self, model: nn.Module, *, face_score: str = "confident", max_instances: int = 100, batch_size: int = 1
    ) -> None:
        """Wrap a system.

        Args:
            model: the system; its mode (training or not) is kept.
            face_score: the image's score from its crops', see `face_score`.
            max_instances: of an image.
            batch_size: crops that the system gets at once; see `OnWindows`.

        Raises:
            ConfigError: an unknown `face_score`.
        """
        super().__init__(model, batch_size=batch_size)
        if face_score not in FACE_SCORES:
            raise ConfigError(f"TEST.FACE_SCORE {face_score!r} is not one of {', '.join(FACE_SCORES)}")
        self.face_score, self.max_instances = face_score, max_instances

    def windows(self, row: dict[str, Any]) -> list[dict[str, Any]] | None:
        """Make a row of each crop; None if the row has none."""
        return [window_row(**crop) for crop in row["crops"]] if "crops" in row else None

    def merge(self, row: dict[str, Any], outputs: Iterable[dict[str, Any]]) -> dict[str, Any]:
        """Make the prediction of an image from those of its crops."""
        windows, size = _windows(row), _size(row)
        scores: list[float] = []
        instances: list[Instances] = []
        spreads: list[float] = []
        whole: Tensor | None = None
        unsure: Tensor | None = None
        for window, output in zip(windows, outputs, strict=True):
            scores.append(float(output["fake_score"]))
            if "score_spread" in output:
                spreads.append(output["score_spread"])
            if "reliability_map" in output:
                unsure = paste_map(1 - output["reliability_map"], window, unsure, size)
            instances.append(output["instances"])
            if "forgery_map" in output:  # else a system that only detects
                whole = paste_map(output["forgery_map"], window, whole, size)
        merged: dict[str, Any] = {
            "fake_score": face_score(scores, self.face_score),
            "instances": paste_instances(instances, windows, size, limit=self.max_instances),
            "faces": [{"window": w, "fake_score": score} for w, score in zip(windows, scores, strict=True)],
        }
        if spreads:
            merged["score_spread"] = max(spreads)
        if unsure is not None:
            merged["reliability_map"] = 1 - unsure
        if "has_face" in row:
            merged["has_face"] = row["has_face"]
        return merged if whole is None else merged | {"forgery_map": whole}

    def merge_maps(self, row: dict[str, Any], maps: Iterable[Tensor]) -> Tensor:
        """Paste the maps of the crops."""
        whole: Tensor | None = None
        for window, part in zip(_windows(row), maps, strict=True):
            whole = paste_map(part, window, whole, _size(row))
        if whole is None:
            raise ValueError("a row's `crops` is empty: it must hold at least one")
        return whole


def paste_map(part: Tensor, window: Window, whole: Tensor | None, size: Size) -> Tensor:
    """Paste a window's map; where maps overlap, the higher value stays.

    Args:
        part: h×w, values >= 0.
        window: where it belongs.
        whole: H×W, changed in place; None: zeros.
        size: (H, W).

    Returns:
        the whole map.
    """
    if whole is None:
        whole = part.new_zeros(size)
    view = inside(whole, window)
    torch.maximum(view, part, out=view)
    return whole


def paste_instances(parts: Sequence[Instances], windows: Sequence[Window], size: Size, *, limit: int) -> Instances:
    """Paste the instances of windows as instances of the image.

    Args:
        parts: of each window, with `pred_masks` N×h×w, `scores` and `pred_classes`.
        windows: where each belongs.
        size: (H, W).
        limit: the most instances; those of the highest scores are kept, in the order of the windows.

    Returns:
        the instances; without any field if the parts have none (a system that only detects).
    """
    merged = Instances(size)
    if not parts[0].has("pred_masks"):
        return merged
    scores = torch.cat([part.scores for part in parts])
    kept = torch.zeros_like(scores, dtype=torch.bool)
    kept[scores.argsort(descending=True, stable=True)[:limit]] = True
    chosen = kept.split([len(part) for part in parts])
    masks = parts[0].pred_masks.new_zeros((int(kept.sum()), *size))
    places = masks.split([int(some.sum()) for some in chosen])
    for part, window, some, place in zip(parts, windows, chosen, places, strict=True):
        inside(place, window).copy_(part.pred_masks[some])
    merged.pred_masks = masks
    merged.scores = scores[kept]
    merged.pred_classes = torch.cat([part.pred_classes for part in parts])[kept]
    return merged


def _windows(row: dict[str, Any]) -> list[Window]:
    return [crop["window"] for crop in row["crops"]]


def _size(row: dict[str, Any]) -> Size:
    return row["height"], row["width"]
