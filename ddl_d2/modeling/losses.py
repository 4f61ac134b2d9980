"""Losses of masks and maps.

On sampled points, and pairwise for matching: Mask2Former, section 3.3; PointRend. On whole maps: "Multi-part
local-displacement self-blending" (Scientific Reports 2025), here "the self-blending paper"; IML-ViT (arXiv 2307.14863).
Poly-focal: PolyLoss (arXiv 2204.12511) with the focal loss, for soft labels, as Loupe's code has it.

Shapes: `M` masks, `Q` predictions, `T` targets, `P` points; `B` images, `H, W` pixels, `N` places of a coarse map.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def sigmoid_bce(logits: Tensor, targets: Tensor) -> Tensor:
    """Compute the mean binary cross-entropy over points: M×P logits, M×P targets in [0, 1] -> M."""
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(dim=1)


def dice(logits: Tensor, targets: Tensor) -> Tensor:
    """Compute 1 - (2 Σpg + 1) / (Σp + Σg + 1) with p = sigmoid(logits): M×P, M×P -> M."""
    p = logits.sigmoid()
    return 1 - (2 * (p * targets).sum(dim=1) + 1) / (p.sum(dim=1) + targets.sum(dim=1) + 1)


def poly_focal(logits: Tensor, targets: Tensor, *, alpha: float, gamma: float = 2.0, epsilon: float = 1.0) -> Tensor:
    """Compute the mean poly-focal loss of rows: M×P logits, M×P targets in [0, 1] -> M.

    With p = sigmoid(logit), how right it is q = pt + (1 - p)(1 - t), and w = αt + (1 - α)(1 - t), that of one logit is
    w · BCE · (1 - q)^γ + ε (1 - q)^(γ + 1).

    Args:
        logits: of "fake" or "forged".
        targets: t.
        alpha: α, the weight of the positive part.
        gamma: γ, how much less the easy ones count.
        epsilon: ε, of the polynomial term.
    """
    p = logits.sigmoid()
    wrong = 1 - (p * targets + (1 - p) * (1 - targets))
    weight = alpha * targets + (1 - alpha) * (1 - targets)
    bce = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return (weight * bce * wrong**gamma + epsilon * wrong ** (gamma + 1)).mean(dim=1)


def tversky(logits: Tensor, targets: Tensor, *, alpha: float) -> Tensor:
    """Compute 1 - (TP + δ) / (TP + α FP + (1 - α) FN + δ), δ = 1e-6, with p = sigmoid(logits): M×P, M×P -> M.

    An α below one half minds what is missed more than what is marked wrongly (Salehi et al., arXiv 1706.05721).
    """
    p = logits.sigmoid()
    hit = (p * targets).sum(dim=1) + 1e-6
    return 1 - hit / (hit + alpha * (p * (1 - targets)).sum(dim=1) + (1 - alpha) * ((1 - p) * targets).sum(dim=1))


def pairwise_sigmoid_bce(logits: Tensor, targets: Tensor) -> Tensor:
    """Compute `sigmoid_bce` of every pair: Q×P, T×P -> Q×T.

    BCE(x, t) = softplus(x) - x·t, so one softplus a prediction and one matrix product do for all targets.
    """
    return (F.softplus(logits).sum(dim=1, keepdim=True) - logits @ targets.t()) / logits.shape[1]


def pairwise_dice(logits: Tensor, targets: Tensor) -> Tensor:
    """Compute `dice` of every pair: Q×P, T×P -> Q×T."""
    p = logits.sigmoid()
    return 1 - (2 * (p @ targets.t()) + 1) / (p.sum(dim=1, keepdim=True) + targets.sum(dim=1) + 1)


def uncertainty(logits: Tensor) -> Tensor:
    """Return how undecided points are, -|logit|: highest at 0."""
    return -torch.abs(logits)


def masked_mean(values: Tensor, valid: Tensor) -> Tensor:
    """Average over the places that count: B×…, bool B×… -> B; each image needs one."""
    weights = valid.to(values.dtype)
    axes = tuple(range(1, values.dim()))
    return (values * weights).sum(dim=axes) / weights.sum(dim=axes)


def mean_of_known(by_image: Tensor, known: Tensor, count: float | None = None) -> Tensor:
    """Average B losses over the images that are known (bool B); 0, and still connected, if there is none.

    Args:
        by_image: the losses.
        known: which of them count; or by how much (float B), with `count`.
        count: how many are known, for a part of a batch see `whole_batch.count_per_part`; None: those of `known`.
    """
    return (by_image * known).sum() / (known.sum().clamp(min=1) if count is None else count)


def map_bce(logits: Tensor, targets: Tensor, valid: Tensor) -> Tensor:
    """Compute the mean binary cross-entropy over valid pixels: B×H×W logits, targets in [0, 1], bool B×H×W -> B."""
    return masked_mean(F.binary_cross_entropy_with_logits(logits, targets, reduction="none"), valid)


def edge_bar(forged: Tensor, valid: Tensor, width: int) -> Tensor:
    """Find the pixels near the edge of what is forged (IML-ViT): those whose cross holds both kinds.

    The cross of a pixel reaches `width // 2` pixels up, down, left and right. What lies outside an image, or is
    padding, is of neither kind, so an image's border is no edge.

    Args:
        forged: bool B×H×W.
        valid: bool B×H×W, not padding.
        width: of the cross in pixels, odd.

    Returns:
        bool B×H×W.
    """
    kinds = torch.stack([forged & valid, ~forged & valid], dim=1).float()
    radius = width // 2
    along_columns = F.max_pool2d(kinds, (width, 1), stride=1, padding=(radius, 0))
    along_rows = F.max_pool2d(kinds, (1, width), stride=1, padding=(0, radius))
    return torch.maximum(along_columns, along_rows).amin(dim=1) > 0


def edge_bce(logits: Tensor, targets: Tensor, valid: Tensor, width: int) -> Tensor:
    """Compute `map_bce` with 0 for pixels off the `edge_bar` of what is forged by half or more.

    Args:
        logits: B×H×W.
        targets: B×H×W in [0, 1].
        valid: bool B×H×W.
        width: see `edge_bar`.

    Returns:
        B: sums over the bar, divided by the number of all valid pixels.
    """
    bar = edge_bar(targets >= 0.5, valid, width)
    return masked_mean(F.binary_cross_entropy_with_logits(logits, targets, reduction="none") * bar, valid)


def pool_valid(targets: Tensor, valid: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """Average the valid pixels of each cell of `stride` × `stride`.

    Args:
        targets: float B×H×W in [0, 1]; H and W are multiples of `stride`.
        valid: bool B×H×W.
        stride: pixels along a cell's side.

    Returns:
        the averages, B×(H/stride)×(W/stride), and which cells have valid pixels, bool of the same shape.
    """
    weights = valid.to(targets.dtype)[:, None]
    share = F.avg_pool2d(weights, stride)[:, 0]
    mean = F.avg_pool2d(targets[:, None] * weights, stride)[:, 0]
    return mean / share.clamp(min=1 / stride**2), share > 0


def feature_similarity(features: Tensor, tau: float) -> Tensor:
    """Return logits of "these two places look alike", τ · cosine of every pair: B×N×C -> B×N×N."""
    unit = F.normalize(features, dim=2)
    return tau * unit @ unit.transpose(1, 2)


def printed_similarity(logits: Tensor) -> Tensor:
    """Return the similarity that eq. 16 of the self-blending paper prints: products p_i · p_j, B×N logits -> B×N×N.

    They lie in (0, 1), so their sigmoid lies in (0.5, 0.731) and reaches neither 0 nor 1.
    """
    p = logits.sigmoid()
    return p[:, :, None] * p[:, None, :]


def local_diversity(similarity: Tensor, targets: Tensor, valid: Tensor) -> Tensor:
    """Compute local diversity (self-blending paper, eqs. 15-17): mean |1 - |g_i - g_j| - σ(s_ij)| over pairs of places.

    Args:
        similarity: B×N×N logits s.
        targets: B×N in [0, 1], the forged share g of each place.
        valid: bool B×N; pairs with a place that is padding are left out.

    Returns:
        B.
    """
    wanted = 1 - (targets[:, :, None] - targets[:, None, :]).abs()
    return masked_mean((wanted - similarity.sigmoid()).abs(), valid[:, :, None] & valid[:, None, :])
