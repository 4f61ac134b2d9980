"""What has to be installed besides ddl_d2's own requirements, and how to say that it is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ddl_d2.errors import InstallError

REMEDIES = {
    "detectron2": "run `ddl-d2 install-detectron2` (from PyPI), or install it from its own repository: "
    "pip install --no-build-isolation git+https://github.com/facebookresearch/detectron2",
    "torch": "run `pip install torch torchvision`",
    "torchvision": "run `pip install torchvision`, of the release that belongs to your torch",
}


@contextmanager
def explained() -> Iterator[None]:
    """Turn the ModuleNotFoundError of a package in `REMEDIES` into one sentence with the command that mends it.

    Raises:
        InstallError: such a package is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in REMEDIES:
            raise
        raise InstallError(f"ddl_d2 needs {package}, which is not installed: {REMEDIES[package]}") from error
