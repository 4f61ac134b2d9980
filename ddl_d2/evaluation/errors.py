"""The error of an evaluation that could not read all images, and a short list of names for messages."""

from __future__ import annotations

from collections.abc import Sequence

from ddl_d2.errors import EvaluationError
from ddl_d2.io.bad_files import BadFile
from ddl_d2.io.bad_files import listed as listed_files


class IncompleteEvaluationError(EvaluationError):
    """Some files of the dataset could not be read, so that not all of it was scored.

    Attributes:
        files: those that could not be read.
        num_images: the number of images in the whole dataset.
        where: what the message adds about the rest.
    """

    def __init__(self, files: Sequence[BadFile], num_images: int, where: str = "") -> None:
        """Say which files could not be read; arguments as the attributes."""
        self.files, self.num_images, self.where = list(files), num_images, where
        super().__init__(
            f"the evaluation is incomplete: {len(self.files)} of {num_images} images were not scored, for these files "
            f"cannot be read: {listed_files(self.files)}. Repair them, or take them out of the dataset.{where}"
        )

    def __reduce__(self) -> tuple[type[IncompleteEvaluationError], tuple[list[BadFile], int, str]]:
        # Otherwise a copy, such as a rank sends to its launcher, would be made from the message.
        return type(self), (self.files, self.num_images, self.where)

    @classmethod
    def of(cls, errors: Sequence[IncompleteEvaluationError]) -> IncompleteEvaluationError:
        """Make one error of those of several datasets."""
        files = [bad for error in errors for bad in error.files]
        return cls(files, sum(error.num_images for error in errors), "".join(error.where for error in errors))


def listed(ids: list[str], limit: int = 5) -> str:
    """Join the first `limit` ids, for an error message that stays one line."""
    return ", ".join(ids[:limit]) + (f" and {len(ids) - limit} more" if len(ids) > limit else "")
