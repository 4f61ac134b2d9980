"""From queries to what is shown of an image: one map, and the confident queries as instances.

Shapes: `Q` queries, `h, w` pixels of their mask logits, `H, W` pixels of the map. For `padded`, `unpadded` and
`original` sizes see `modeling/postprocessing.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.structures import Instances
from torch import Tensor

from ddl_d2.modeling.postprocessing import Size, forged_instances, to_original

# Scalars of painted masks held at once while queries are summed into a map (fp32: 16 MiB).
_MAX_PAINTED = 4 * 2**20
# Rows of the masks painted at once, at least: two more are painted for their sake.
_MIN_BAND = 4
# A query is shown as an instance from this confidence.
_INSTANCE_CONFIDENCE = 0.5
# Below this neither class is painted anywhere near a pixel, which is then authentic.
_NOTHING_PAINTED = 1e-12


def query_outputs(
    masks: Tensor, logits: Tensor, padded: Size, unpadded: Size, original: Size, *, limit: int, threshold: float
) -> dict[str, Any]:
    """Make `forgery_map` and `instances` of the last set of queries of one image.

    Args:
        masks: logits Q×h×w.
        logits: of the classes, Q×(K+1): authentic if it is one, forged, no object.
        padded: size of the network's input.
        unpadded: size of the image in it.
        original: size of the result.
        limit: see `query_instances`.
        threshold: see `query_instances`.
    """
    masks, probabilities = masks.float(), logits.float().softmax(-1)
    forged, sizes = probabilities[:, -2], (padded, unpadded, original)
    authentic = probabilities[:, 0] if probabilities.shape[1] == 3 else None
    return {
        "forgery_map": forgery_map(masks, forged, *sizes, authentic=authentic),
        "instances": query_instances(masks, forged, *sizes, limit, threshold=threshold),
    }


def painted_at_once(masks: Tensor, logits: Tensor, size: Size) -> tuple[Tensor, Tensor | None]:
    """Compute the sums S_f and, where authentic is a class, S_a of `forgery_map` for all images and queries at once.

    That takes Q × H × W numbers an image, but no loop, which an exported graph of any size could not have.

    Args:
        masks: logits B×Q×h×w.
        logits: of the classes, B×Q×(K+1): authentic if it is one, forged, no object.
        size: (H, W).

    Returns:
        B×H×W each.
    """
    painted = F.interpolate(masks.float(), size, mode="bilinear", align_corners=False).sigmoid()
    sums = torch.einsum("bqhw,bqk->bkhw", painted, logits.float().softmax(-1)[:, :, :-1])
    return sums[:, -1], sums[:, 0] if logits.shape[-1] == 3 else None


def forgery_map(
    masks: Tensor, forged: Tensor, padded: Size, unpadded: Size, original: Size, *, authentic: Tensor | None = None
) -> Tensor:
    """Sum the queries' masks, S_f = Σ_q p_q(forged) σ(mask_q), and clip the sum to 1.

    The sum is taken at the network's input size (a multiple of the masks') and then resized, before any threshold.
    Where authentic is a class of its own, with the sum S_a, the map is S_f / (S_f + S_a): above 0.5 where forged is the
    larger of the two, as mmsegmentation decides.

    Args:
        masks: logits Q×h×w.
        forged: p(forged) of each query, Q.
        padded: size of the network's input.
        unpadded: size of the image in it.
        original: size of the result.
        authentic: p(authentic) of each query, Q; None: there is no such class.

    Returns:
        float H×W in [0, 1].
    """
    painted = to_original(painted_sum(masks, forged, padded), unpadded, original)
    if authentic is None:
        return painted.clamp_(0, 1)
    other = to_original(painted_sum(masks, authentic, padded), unpadded, original)
    return painted.div_(other.add_(painted).clamp_(min=_NOTHING_PAINTED)).clamp_(0, 1)


def painted_sum(masks: Tensor, weights: Tensor, padded: Size) -> Tensor:
    """Compute Σ_q w_q σ(mask_q resized to `padded`): Q×h×w logits, Q weights -> H×W.

    All queries are painted on one band of rows after the other, so that memory does not grow with Q × H × W. They come
    last in memory: resizing is then twice as fast on CPUs, and the sum is one product.
    """
    height, ratio = masks.shape[1], padded[0] // masks.shape[1]
    band = max(_MIN_BAND, _MAX_PAINTED // (ratio * padded[1] * len(masks)))
    total = masks.new_empty(padded)
    for top in range(0, height, band):
        bottom = min(top + band, height)
        # With their neighbors, on which their painted pixels depend; those of the neighbors are dropped.
        first, last = max(top - 1, 0), min(bottom + 1, height)
        logits = masks[None, :, first:last].contiguous(memory_format=torch.channels_last)
        size = (ratio * (last - first), padded[1])
        painted = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)[0].permute(1, 2, 0)
        painted = painted[ratio * (top - first) : ratio * (bottom - first)].sigmoid_()
        total[ratio * top : ratio * bottom] = painted @ weights
    return total


def query_instances(
    masks: Tensor, forged: Tensor, padded: Size, unpadded: Size, original: Size, limit: int, *, threshold: float = 0.5
) -> Instances:
    """Show the confident queries as Detectron2 instances.

    An instance's score is p(forged) × the mean mask probability inside its mask.

    Args:
        masks: as in `forgery_map`.
        forged: as in `forgery_map`.
        padded: as in `forgery_map`.
        unpadded: as in `forgery_map`.
        original: as in `forgery_map`.
        limit: the most instances; the most confident are kept.
        threshold: a pixel is in a query's mask where its probability is strictly greater.
    """
    confidence, order = forged.sort(descending=True)
    kept = order[confidence >= _INSTANCE_CONFIDENCE][:limit].tolist()
    queries = ((masks[query], forged[query]) for query in kept)
    found = _painted_instances(queries, padded, unpadded, original, threshold)
    return forged_instances(found, most=len(kept), size=original, device=masks.device)


def _painted_instances(
    queries: Iterable[tuple[Tensor, Tensor]], padded: Size, unpadded: Size, original: Size, threshold: float
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield mask (bool H×W) and score of each query (mask logits h×w, p(forged)) whose mask is not empty."""
    for logits, confidence in queries:
        painted = F.interpolate(logits[None, None], size=padded, mode="bilinear", align_corners=False)[0, 0]
        probability = to_original(painted.sigmoid_(), unpadded, original)
        mask = probability > threshold
        if area := int(mask.sum()):
            yield mask, confidence * probability.mul_(mask).sum() / area
