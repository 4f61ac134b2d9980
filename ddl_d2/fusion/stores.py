"""Several prediction stores side by side: the same images in one order, the same labels, maps of one size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ddl_d2.errors import FusionError
from ddl_d2.evaluation.errors import listed
from ddl_d2.fusion.ensemble import resize_map
from ddl_d2.predictions.store import PredictionStore


@dataclass(frozen=True)
class AlignedStores:
    """S stores' predictions of N images.

    Attributes:
        stores: in the order they were given.
        ids: of the images, sorted.
        scores: (S, N) float64 in [0, 1], P(fake).
        labels: (N,) int8, 0 real, 1 fake, -1 unknown to every store.
    """

    stores: tuple[PredictionStore, ...]
    ids: list[str]
    scores: NDArray[np.float64]
    labels: NDArray[np.int8]

    @property
    def max_pixels(self) -> int:
        """The most pixels an image may have in any of the stores."""
        return max(store.max_pixels for store in self.stores)


def align_stores(stores: Sequence[PredictionStore], *, intersection: bool = False) -> AlignedStores:
    """Bring stores to one list of images.

    Args:
        stores: two or more.
        intersection: keep the images that all stores have, instead of refusing when their lists differ.

    Raises:
        FusionError: fewer than two stores, lists that differ (the message says which lacks what) or share nothing, or
            an image that one store calls real and another fake.
    """
    if len(stores) < 2:
        raise FusionError("fusing takes at least two prediction stores")
    positions = [{image_id: index for index, image_id in enumerate(store.ids)} for store in stores]
    common = set(positions[0]).intersection(*positions[1:])
    if not intersection:
        _refuse_unlike(stores, positions, len(common))
    if not common:
        raise FusionError("nothing to fuse: the prediction stores have no image in common")
    ids = sorted(common)
    orders = [np.array([position[image_id] for image_id in ids]) for position in positions]
    scores = np.stack([store.scores[order] for store, order in zip(stores, orders, strict=True)])
    labels = np.stack([store.labels[order] for store, order in zip(stores, orders, strict=True)])
    return AlignedStores(tuple(stores), ids, scores, _merged_labels(stores, ids, labels))


def read_maps(stores: Sequence[PredictionStore], image_id: str) -> tuple[list[NDArray[np.uint8]], int]:
    """Read the maps of one image; tell how many of them had to be resized.

    A store's maps have their image's original size. Where they differ all the same, the first store's size is taken
    for the image's and the others' maps are brought to it (`resize_map`): no image is left out.

    Raises:
        StoreError: a map cannot be read.
    """
    maps = [store.read_map(image_id) for store in stores]
    height, width = maps[0].shape
    unlike = sum(forgery_map.shape != (height, width) for forgery_map in maps)
    return [resize_map(forgery_map, height, width) for forgery_map in maps], unlike


def _refuse_unlike(stores: Sequence[PredictionStore], positions: Sequence[dict[str, int]], shared: int) -> None:
    first, *others = positions
    problems = []
    for store, other in zip(stores[1:], others, strict=True):
        for here, there, has, lacks in ((first, other, stores[0], store), (other, first, store, stores[0])):
            if missing := sorted(here.keys() - there.keys()):
                problems.append(f"{has.root} has {len(missing)} that {lacks.root} lacks ({listed(missing)})")
    if problems:
        raise FusionError(
            f"the prediction stores hold different images: {'; '.join(problems)}. "
            f"To fuse only the {shared} that all of them have, say so (--intersection)"
        )


def _merged_labels(stores: Sequence[PredictionStore], ids: list[str], labels: NDArray[np.int8]) -> NDArray[np.int8]:
    """Merge (S, N) labels into (N,): what any store knows."""
    merged = labels.max(axis=0)
    unlike = (labels >= 0) & (labels != merged)
    if unlike.any():
        wrong = np.flatnonzero(unlike.any(axis=0))
        index = int(wrong[0])
        says = ", ".join(
            f"{store.root} {'fake' if label else 'real'}"
            for store, label in zip(stores, labels[:, index].tolist(), strict=True)
            if label >= 0
        )
        raise FusionError(f"the labels of {len(wrong)} images contradict each other, first {ids[index]}: {says}")
    return merged
