"""The error types of this folder, for data that cannot be evaluated honestly."""

from __future__ import annotations

from collections.abc import Sequence

from ddl_d2.errors import EvaluationError
from ddl_d2.io.bad_files import BadFile
from ddl_d2.io.bad_files import listed as listed_files


class IncompleteEvaluationError(EvaluationError):
    """Some files of the dataset could not be read, so that not all of it was scored; `files` are these."""

    def __init__(self, files: Sequence[BadFile], num_images: int, where: str = "") -> None:
        """Args:
        num_images: in the whole dataset.
        where: what to add about the rest.
        """
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
        """Of several datasets together."""
        files = [bad for error in errors for bad in error.files]
        return cls(files, sum(error.num_images for error in errors), "".join(error.where for error in errors))


def listed(ids: list[str], limit: int = 5) -> str:
    """The first `limit` ids of a list, for an error message that stays one line."""
    return ", ".join(ids[:limit]) + (f" and {len(ids) - limit} more" if len(ids) > limit else "")
