"""Writing a prediction store that several others were fused into."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddl_d2.errors import StoreError
from ddl_d2.fusion.stores import AlignedStores, read_maps
from ddl_d2.predictions.layout import STORE_FILES
from ddl_d2.predictions.store import PredictionStore
from ddl_d2.predictions.writer import PredictionStoreWriter
from ddl_d2.utils.threads import in_order

FuseMaps = Callable[[Sequence[NDArray[np.uint8]]], NDArray[np.uint8]]


def write_fused_store(
    output: str | os.PathLike[str],
    systems: AlignedStores,
    scores: NDArray[np.float64],
    map_stores: Sequence[PredictionStore],
    fuse_maps: FuseMaps,
    *,
    meta: Mapping[str, Any],
    segments: Mapping[str, NDArray[np.float64]] | None = None,
    overwrite: bool = False,
    workers: int = 1,
) -> int:
    """Write what several systems say together; labels are carried over where a store knows them.

    Args:
        output: the new store's folder. It appears whole or not at all, and what was there stays until then.
        systems: the predictions to fuse, N images.
        scores: (N,) fused fake scores in [0, 1], in the order of `systems.ids`.
        map_stores: whose maps are fused, of `systems`; none makes a store without maps.
        fuse_maps: their maps of one image, uint8 H x W of equal size -> the fused one; called from several threads.
        meta: JSON values for `meta.json`, see `predictions.meta.make_meta`.
        segments: the fused segments of each clip, by id; None: the systems are not about clips.
        overwrite: replace a store that lies there. A folder with anything else in it is refused.
        workers: threads that decode, fuse and encode; they do not change a byte of the store.

    Returns:
        The number of maps that had another size than the first store's (see `fusion.read_maps`).

    Raises:
        StoreError: the folder is in use or one of `systems`, or a map cannot be read.
        OSError: the store cannot be written.
    """
    output = Path(output).resolve()
    if any(output == store.root.resolve() for store in systems.stores):
        raise StoreError(f"{output} is one of the stores to fuse: write to another folder")
    with _taking_the_place_of(output, overwrite) as folder, ExitStack() as stack:
        # A writer per thread, as for several processes. They open and close one after the other, so nobody has to wait.
        free: SimpleQueue[PredictionStoreWriter] = SimpleQueue()
        for rank in range(workers):
            writer = PredictionStoreWriter(
                folder, meta, overwrite=True, rank=rank, world_size=workers, barrier=lambda: None
            )
            free.put(stack.enter_context(writer))

        def fuse_one(index: int) -> int:
            image_id, label = systems.ids[index], int(systems.labels[index])
            forgery_map, resized = None, 0
            if map_stores:
                maps, resized = read_maps(map_stores, image_id)
                forgery_map = fuse_maps(maps)
            writer = free.get()
            try:
                writer.add(
                    image_id,
                    float(scores[index]),
                    forgery_map,
                    label=None if label < 0 else label,
                    has_face=any(image_id not in store.without_face for store in systems.stores),
                    segments=None if segments is None else segments[image_id],
                )
            finally:
                free.put(writer)
            return resized

        return sum(in_order(fuse_one, range(len(systems.ids)), workers))


@contextmanager
def _taking_the_place_of(output: Path, overwrite: bool) -> Iterator[Path]:
    """Give a folder beside `output` that takes its place when the block ends well and vanishes otherwise."""
    _check_replaceable(output, overwrite)
    output.parent.mkdir(parents=True, exist_ok=True)
    fresh, old = (output.with_name(f".{output.name}.{os.getpid()}.{state}") for state in ("new", "old"))
    try:
        yield fresh
        if output.exists():
            os.rename(output, old)
        try:
            os.rename(fresh, output)
        except OSError:
            if old.exists():
                os.rename(old, output)
            raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def _check_replaceable(output: Path, overwrite: bool) -> None:
    """Raise StoreError unless `output` is absent or empty or, with `overwrite`, holds a store and nothing else."""
    if not output.exists():
        return
    if not output.is_dir():
        raise StoreError(f"{output} is not a folder")
    names = {entry.name for entry in output.iterdir()}
    if names and not overwrite:
        raise StoreError(f"{output} is in use: choose another folder, or overwrite the store there (--overwrite)")
    if others := sorted(names - STORE_FILES):
        raise StoreError(f"{output} holds more than a prediction store ({others[0]}): it will not be overwritten")
