"""Every error that a user can cause or mend, under one base.

The command lines ask for the type: a `DdlError` (or OSError) is told in one line and ends with exit code 2; anything
else is a fault of the program and keeps its traceback. Kinds that carry what other rooms define live there:
`io.bad_files.TooManyBadFilesError`, `evaluation.errors.IncompleteEvaluationError`.
"""

from __future__ import annotations

import os


class DdlError(Exception):
    """The base of this project's errors; the message says what was wrong, where, and what to do."""


class ConfigError(DdlError, ValueError):
    """A config file cannot be read, or a key or value in it (or on the command line) is wrong."""


class ImageReadError(DdlError, ValueError):
    """An image, mask or video that cannot be used: `path`, and `reason` in words."""

    def __init__(self, path: str | os.PathLike[str], reason: str = "") -> None:
        self.path = os.fspath(path)
        self.reason = reason
        super().__init__(self.path, reason)

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}" if self.reason else self.path


class DatasetError(DdlError, ValueError):
    """A dataset that cannot be used as asked for; says what was looked for, where, and what was found."""


class CheckpointError(DdlError, ValueError):
    """A file of weights cannot be read, or does not fit the model."""


class SaveError(DdlError, OSError):
    """A file could not be written. What was there before is as it was."""


class StoreError(DdlError, ValueError):
    """A prediction store that cannot be written or read as asked; the message says which file or image and why."""


class CalibrationError(DdlError, ValueError):
    """A calibration that cannot be made, read or used with these weights; the message says why and what to do."""


class SubmissionError(DdlError, ValueError):
    """A submission that would break the challenge's rules; the message says which image and why."""


class EvaluationError(DdlError, ValueError):
    """What was predicted and what was asked for do not fit: missing images, contradictions, impossible values."""


class FusionError(DdlError, ValueError):
    """Predictions that cannot be fused as asked: unlike images, contradicting labels, impossible weights or sizes."""


class FaceFinderUnavailableError(DdlError, RuntimeError):
    """The face finder's library or model is not installed; the message says what to install."""


class ForgeryError(DdlError, ValueError):
    """Images cannot be forged as asked; the message says why and what to do."""


class InputError(DdlError, ValueError):
    """What was asked for cannot be read or written; the message names it."""


class ExportError(DdlError, RuntimeError):
    """A model cannot be exported as asked, or an exported one differs from the original; the message has figures."""


class RecordError(DdlError, ValueError):
    """An examination record or its chain is not what was written, or cannot be repeated; the message says what."""


class RankError(DdlError, RuntimeError):
    """A rank died, hung or raised something that this process cannot raise again; the message names it."""


class NonFiniteError(DdlError, FloatingPointError):
    """A cost, a loss or a gradient is NaN or infinite; carries the images it came from."""

    def __init__(self, what: str, image_ids: list[str], note: str = "") -> None:
        self.what = what
        self.image_ids = image_ids
        self.note = note
        super().__init__(
            f"{what} is not finite; images: {', '.join(image_ids)}. The weights were not updated. "
            "Usual causes: a learning rate too high for the batch; float16 overflow (try SOLVER.AMP.PRECISION bfloat16)"
            f"{note}"
        )

    def __reduce__(self) -> tuple[type[NonFiniteError], tuple[str, list[str], str]]:
        # Otherwise a copy, such as a rank sends to its launcher, would be made from the message.
        return type(self), (self.what, self.image_ids, self.note)


class InstallError(DdlError, RuntimeError):
    """Something that ddl_d2 needs is not installed, or cannot be; the message has the command that mends it."""
