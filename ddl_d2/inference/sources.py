"""Predicting what users have: paths, folders, bytes, PIL images and arrays. Needs no torch."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, overload

import numpy as np
from PIL import Image

from ddl_d2.errors import ImageReadError, InputError
from ddl_d2.inference.images import expand_inputs
from ddl_d2.inference.prediction import Prediction
from ddl_d2.io.image import convert_image, decode_image, read_image
from ddl_d2.predictions.calibration import Calibration
from ddl_d2.utils.text import printable

Source = str | os.PathLike[str] | bytes | Image.Image | np.ndarray


class PredictsSources(ABC):
    """What predicts decoded images, given the ways in which users name images.

    Attributes:
        threshold: an image is called fake above this score, 0..1, without a calibration.
        calibration: what decides on images; None if nothing does but the threshold.
        max_pixels: the most pixels an image may have.
    """

    def __init__(
        self, *, threshold: float, map_threshold: float, max_pixels: int, calibration: Calibration | None = None
    ) -> None:
        """Keep the numbers; see `Attributes`, and for `map_threshold` there.

        Raises:
            InputError: a threshold outside 0..1.
        """
        if not 0 <= threshold <= 1:
            raise InputError(f"the threshold is {threshold:g}: it must lie within 0 and 1")
        self.threshold, self.calibration, self.max_pixels = threshold, calibration, max_pixels
        self._map_threshold = map_threshold

    @property
    def map_threshold(self) -> float:
        """A pixel is forged where the map is above it: the calibration's, or else the config's."""
        found = None if self.calibration is None else self.calibration.map_threshold
        return self._map_threshold if found is None else found

    @abstractmethod
    def outputs(self, images: Sequence[np.ndarray]) -> Sequence[Mapping[str, Any]]:
        """Predict decoded images, uint8 H×W×3 RGB: `fake_score` and `forgery_map` (H×W) of each, at least."""

    @overload
    def predict(self, source: Source) -> Prediction: ...

    @overload
    def predict(self, source: list[Source]) -> list[Prediction]: ...

    def predict(self, source: Source | list[Source]) -> Prediction | list[Prediction]:
        """Predict an image, or each of a list of images in one go.

        Args:
            source: a path, the bytes of an image file, a PIL image, or an array H×W×3 RGB (uint8); or a list of these.

        Returns:
            the result, or a list of results in the order of the images.

        Raises:
            ImageReadError: an image cannot be read (`predict_many` goes on instead).
        """
        sources = source if isinstance(source, list) else [source]
        results = self._predict([self._read(one) for one in sources])
        for result in results:
            if result.error is not None:
                raise result.error
        return results if isinstance(source, list) else results[0]

    def predict_many(
        self, sources: str | os.PathLike[str] | Iterable[Source], *, batch_size: int = 8
    ) -> Iterator[Prediction]:
        """Predict many images one batch after the other; what cannot be read is a result with `error`.

        Args:
            sources: a folder (searched to the bottom), a glob, a file, or any iterable of what `predict` takes.
            batch_size: images that are read and held at once. Those of one size also go through the model at once.

        Yields:
            one result per image, in their order.

        Raises:
            InputError: the folder or glob holds no image.
        """
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}: it must be at least 1")
        if isinstance(sources, (str, os.PathLike)):
            sources = expand_inputs([sources]).images
        remaining = iter(sources)
        while batch := list(islice(remaining, batch_size)):
            yield from self._predict([self._read(source) for source in batch])

    def _predict(self, images: Sequence[tuple[str, np.ndarray | ImageReadError]]) -> list[Prediction]:
        readable = [image for _, image in images if not isinstance(image, ImageReadError)]
        outputs = iter(self.outputs(readable))
        return [
            Prediction(file=file, error=image)
            if isinstance(image, ImageReadError)
            else Prediction(
                file=file,
                image=image,
                output=next(outputs),
                threshold=self.threshold,
                map_threshold=self.map_threshold,
                calibration=self.calibration,
            )
            for file, image in images
        ]

    def _read(self, source: Source) -> tuple[str, np.ndarray | ImageReadError]:
        """(file or "", uint8 H×W×3 RGB, or why it cannot be read)."""
        name = printable(source) if isinstance(source, (str, os.PathLike)) else ""
        try:
            return name, _pixels(source, self.max_pixels)
        except ImageReadError as error:
            # Not the exception that was caught: with its frames it would hold the file's content.
            return name, ImageReadError(error.path, error.reason)


def _pixels(source: Source, max_pixels: int) -> np.ndarray:
    if isinstance(source, (str, os.PathLike)):
        return read_image(source, max_pixels=max_pixels)
    if isinstance(source, bytes):
        return decode_image(source, max_pixels=max_pixels)
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3 or not source.size:
            raise ImageReadError("array", f"must be uint8 H×W×3 RGB, not {source.dtype} {source.shape}")
        return source
    if isinstance(source, Image.Image):
        return convert_image(source, max_pixels=max_pixels)
    raise InputError(f"cannot predict a {type(source).__name__}: give a path, bytes, a PIL image or an array")
