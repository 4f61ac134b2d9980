"""The errors of this project."""

from __future__ import annotations

import os


class ConfigError(ValueError):
    """A config file cannot be read, or a key or value in it (or on the command line) is wrong."""


class ImageReadError(ValueError):
    """A picture, mask or video that cannot be used: `path`, and `reason` in words."""

    def __init__(self, path: str | os.PathLike[str], reason: str = "") -> None:
        self.path = os.fspath(path)
        self.reason = reason
        super().__init__(self.path, reason)

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}" if self.reason else self.path


class DatasetError(ValueError):
    """A dataset that cannot be used as asked for; says what was looked for, where, and what was found."""


class CheckpointError(ValueError):
    """A file of weights cannot be read, or does not fit the model."""


class SaveError(OSError):
    """A file could not be written. What was there before is as it was."""


class StoreError(ValueError):
    """A prediction store that cannot be written or read as asked; the message says which file or image and why."""


class SubmissionError(ValueError):
    """A submission that would break the challenge's rules; the message says which image and why."""


class EvaluationError(ValueError):
    """What was predicted and what was asked for do not fit: missing images, contradictions, impossible values."""


class FusionError(ValueError):
    """Predictions that cannot be fused as asked: unlike pictures, contradicting labels, impossible weights or sizes."""


class FaceFinderUnavailable(RuntimeError):
    """The face finder's library or model is not installed; the message says what to install."""


class ForgerySetError(ValueError):
    """A forged set cannot be made as asked; the message says why and what to do."""


class InputError(ValueError):
    """What was asked for cannot be read or written; the message names it."""


class RankError(RuntimeError):
    """A rank died, hung or raised something that this process cannot raise again; the message names it."""


class NonFiniteError(FloatingPointError):
    """A cost, a loss or a gradient is NaN or infinite; carries the pictures it came from."""

    def __init__(self, what: str, image_ids: list[str], note: str = ""):
        self.what = what
        self.image_ids = image_ids
        self.note = note
        super().__init__(
            f"{what} is not finite; pictures: {', '.join(image_ids)}. The weights were not updated. "
            "Usual causes: a learning rate too high for the batch; float16 overflow (try SOLVER.AMP.PRECISION bfloat16)"
            f"{note}"
        )

    def __reduce__(self) -> tuple[type[NonFiniteError], tuple[str, list[str], str]]:
        # Otherwise a copy, such as a rank sends to its launcher, would be made from the message.
        return type(self), (self.what, self.image_ids, self.note)
