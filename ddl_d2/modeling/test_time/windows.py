"""The base class for predicting an image from windows of it (tiles, faces) instead of the whole.

Shapes: `H, W` pixels of the whole, `h, w` those of a window. A window is (x0, y0, x1, y1) in whole pixels of the whole,
x1 and y1 just outside.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from torch import Tensor, nn

Window = tuple[int, int, int, int]


class OnWindows(nn.Module, ABC):
    """A system that predicts windows of an image and merges the predictions; rows in, predictions out, as any system.

    Training, and rows without windows, go straight to the system, and so do its weights: `state_dict` is the system's.
    Subclasses say what windows a row has, and how predictions are merged.
    """

    def __init__(self, model: nn.Module, *, batch_size: int = 1) -> None:
        """Wrap a system.

        Args:
            model: the system; its mode (training or not) is kept.
            batch_size: windows that the system gets at once. Systems whose outputs depend on what shares a padded batch
                give each window the outputs it has alone only with 1, or if all windows of an image have one size.
        """
        super().__init__()
        self.model = model
        self.batch_size = batch_size
        self.train(model.training)

    @abstractmethod
    def windows(self, row: dict[str, Any]) -> Sequence[dict[str, Any]] | None:
        """Make a row, with `height` and `width`, of each window; None: the row goes to the system as it is."""

    @abstractmethod
    def merge(self, row: dict[str, Any], outputs: Iterable[dict[str, Any]]) -> dict[str, Any]:
        """Make the prediction of an image from those of its windows, in their order, each read once."""

    @abstractmethod
    def merge_maps(self, row: dict[str, Any], maps: Iterable[Tensor]) -> Tensor:
        """Merge maps h×w (values >= 0) of an image's windows, in their order, into one at its original size, H×W."""

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """Return the losses of a batch of rows in training mode, their predictions in eval mode."""
        parts = [None if self.training else self.windows(row) for row in batched_inputs]
        whole = [row for row, windows in zip(batched_inputs, parts, strict=True) if windows is None]
        if len(whole) == len(batched_inputs):
            return self.model(batched_inputs)
        straight = iter(self.model(whole) if whole else [])
        return [
            next(straight) if windows is None else self.merge(row, self._outputs(windows))
            for row, windows in zip(batched_inputs, parts, strict=True)
        ]

    def _outputs(self, rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Predict windows, yielding one at a time, so that no more than a batch of full predictions is held."""
        for start in range(0, len(rows), self.batch_size):
            yield from self.model(rows[start : start + self.batch_size])

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Return the system's state dict."""
        return self.model.state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Load into the system."""
        return self.model.load_state_dict(*args, **kwargs)


def inside(whole: Tensor, window: Window) -> Tensor:
    """Return the view ...×h×w of a tensor ...×H×W that a window shows."""
    x0, y0, x1, y1 = window
    return whole[..., y0:y1, x0:x1]


def window_row(image: Tensor, window: Window, **others: Any) -> dict[str, Any]:
    """Make the row of a window: `image` 3×h'×w' at any size, to be predicted at the window's, h×w; and `others`."""
    x0, y0, x1, y1 = window
    return {"image": image, "height": y1 - y0, "width": x1 - x0, **others}
