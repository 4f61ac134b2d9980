"""Install Detectron2's Python files from PyPI, where it has no release of its own.

    ddl-d2 install-detectron2

An importable Detectron2 (0.6 or newer, or main) is left as it is. Otherwise the wheel `sal-detectron2`, whose Python
files are upstream's at commit a59f0563 but for three trivial lines, goes into this Python's site-packages. The wheel
is tagged CPython 3.10 for the sake of a compiled part that was linked against another PyTorch. ddl_d2 needs no compiled
part of Detectron2, so the tag is overridden and the binary is left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from ddl_d2.errors import InstallError

REQUIREMENT = "sal-detectron2==0.7.2 --hash=sha256:491af0c7f79bdb2d178e46f6cb16a97c4ac968d45c41ea3f6b6435d59bbee561"


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    return argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)


def main(argv: list[str] | None = None) -> int:
    """Install it if it is missing; returns the exit code."""
    build_parser().parse_args(argv)
    if importlib.util.find_spec("detectron2") is not None:
        print("detectron2 is already installed")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        staging = Path(folder)
        _download(staging)
        _strip(staging)
        shutil.copytree(staging, sysconfig.get_path("purelib"), dirs_exist_ok=True)
    print("detectron2 installed from sal-detectron2")
    return 0


def _download(target: Path) -> None:
    """Unpack the wheel into `target`; pip checks its hash."""
    requirements = target / "requirements.txt"
    requirements.write_text(REQUIREMENT + "\n", encoding="utf-8")
    options = ["--quiet", "--no-deps", "--only-binary=:all:", "--python-version", "3.10", "--require-hashes"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(target), "-r", str(requirements)]
    if subprocess.run(command, check=False).returncode:  # noqa: S603  fixed words, no shell
        raise InstallError("pip could not fetch sal-detectron2 (see above); docs/install.md has other ways")
    requirements.unlink()


def _strip(staging: Path) -> None:
    """Remove the compiled part, a stray top-level package, and requirements that are not Detectron2's."""
    for stray in ("tools", "bin"):
        shutil.rmtree(staging / stray, ignore_errors=True)
    for binary in (staging / "detectron2").rglob("_C*.so"):
        binary.unlink()
    for metadata in staging.glob("sal_detectron2-*.dist-info/METADATA"):
        lines = metadata.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if not line.startswith("Requires-Dist:")]
        metadata.write_text("".join(kept), encoding="utf-8")
