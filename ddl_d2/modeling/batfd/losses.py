"""The losses of BA-TFD and BA-TFD+.

Shapes: `B` clips, `D` durations (rows of a map), `T` frames, `F` features.

Source: Cai et al. 2022 and 2023, and their code. Each loss is a mean over clips of means over the frames of a clip;
`share` says how much each clip counts, so that their sum is that mean.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ddl_d2.modeling.batfd.boundary_curves import BoundaryOutputs
from ddl_d2.modeling.batfd.clip_batch import ClipTruth

CONTRAST_SCALINGS = ("exact", "published")


def map_loss(maps: dict[str, Tensor], target: Tensor, valid: Tensor, share: Tensor) -> Tensor:
    """Return the sum, over the maps of a group, of their squared errors.

    Args:
        maps: {name: B×D×T in [0, 1]}.
        target: B×D×T.
        valid: B×T, 1 on the frames of the clip; the others are left out.
        share: B.
    """
    errors = [((one - target).square().mean(dim=1), valid) for one in maps.values()]
    return sum((_over_frames(error, mask, share) for error, mask in errors), start=share.new_zeros(()))


def frame_loss(logits: Tensor, labels: Tensor, valid: Tensor, share: Tensor) -> Tensor:
    """Return the binary cross-entropy of the frames.

    Args:
        logits: B×1×T.
        labels: B×T in [0, 1].
        valid: as in `map_loss`.
        share: B.
    """
    errors = F.binary_cross_entropy_with_logits(logits[:, 0].float(), labels, reduction="none")
    return _over_frames(errors, valid, share)


def curve_loss(curves: tuple[Tensor, Tensor], targets: tuple[Tensor, Tensor], valid: Tensor, share: Tensor) -> Tensor:
    """Return the squared errors of start and end; all B×T."""
    start, end = (_over_frames((c - t).square(), valid, share) for c, t in zip(curves, targets, strict=True))
    return start + end


def contrast_loss(
    video: Tensor, audio: Tensor, valid: Tensor, real: Tensor, share: Tensor, *, margin: float, scaling: str
) -> Tensor:
    """Return how far the modalities of real clips are apart, and how near those of fake ones.

    With d the distance (Frobenius norm) of the two over the frames of the clip: d² of a real clip, max(margin - d, 0)²
    of a fake one; the mean is divided by F·T and cut at 1.

    Args:
        video: B×F×T, the features.
        audio: likewise.
        valid: B×T.
        real: B, 1 for real.
        share: B.
        margin: see above.
        scaling: "published" divides by F·T a second time, as BA-TFD+'s code does; the loss is then all but off.
    """
    squared = ((video.float() - audio.float()) * valid[:, None]).square().sum(dim=(1, 2))
    # The square root has no slope at 0.
    near = (margin - (squared + 1e-12).sqrt()).clamp(min=0).square()
    size = video.shape[1] * video.shape[2]
    loss = (((real * squared + (1 - real) * near) * share).sum() / size).clamp(max=1)
    return loss / size if scaling == "published" else loss


def _over_frames(errors: Tensor, valid: Tensor, share: Tensor) -> Tensor:
    """Average B×T over the valid frames of each clip, and add the clips up by their share."""
    return ((errors * valid).sum(dim=1) / valid.sum(dim=1).clamp(min=1) * share).sum()


def boundary_losses(
    forward: BoundaryOutputs,
    backward: BoundaryOutputs,
    truth: ClipTruth,
    shares: dict[str, Tensor],
    *,
    feature_weight: float,
) -> dict[str, Tensor]:
    """Return the losses of the boundary generators, {group: loss}.

    Args:
        forward: of the clips.
        backward: of the clips played backward: there, a start is where a segment ends.
        truth: of the clips.
        shares: {group: float B}.
        feature_weight: of the agreement of hidden features, forward and backward.
    """
    losses = {}
    for group, share in shares.items():
        start, end = truth.curves[group]
        back_start, back_end = (torch.flip(curve, dims=(1,)) for curve in backward.curves[group])
        loss = curve_loss(forward.curves[group], (start, end), truth.valid, share)
        losses[group] = loss + curve_loss((back_end, back_start), (start, end), truth.valid, share)
        if group in forward.hidden:
            agreement = feature_agreement(forward.hidden[group], backward.hidden[group], truth.valid, share)
            losses[group] = losses[group] + feature_weight * agreement
    return losses


def feature_agreement(hidden: Tensor, reversed_hidden: Tensor, valid: Tensor, share: Tensor) -> Tensor:
    """Return the squared difference between the hidden features of a clip played forward and backward, B×C×T both.

    `reversed_hidden` runs backward in time, as the clip that it was made from.
    """
    errors = (hidden - torch.flip(reversed_hidden, dims=(2,))).square().mean(dim=1)
    return _over_frames(errors, valid, share)
