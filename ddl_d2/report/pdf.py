"""A page of the project's own as PDF, printed by a browser that is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from ddl_d2.errors import InstallError
from ddl_d2.io.atomic import write_whole

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "microsoft-edge")
"""What Chromium and its kin are called; the first that is found prints."""

_SECONDS = 300


def find_browser() -> str:
    """Find the program that prints.

    Raises:
        InstallError: there is none.
    """
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        raise InstallError(
            "a PDF is printed by Chromium, which is not installed: run `apt install chromium`, or print the HTML file "
            "from any browser"
        )
    return found


def print_pdf(page: Path, output: Path) -> None:
    """Print an HTML file that needs nothing from outside.

    Args:
        page: the HTML file.
        output: the PDF file; it appears whole or not at all.

    Raises:
        InstallError: there is no browser, or it does not print.
        OSError: the file cannot be written.
    """
    browser = find_browser()
    with tempfile.TemporaryDirectory(prefix="ddl_d2_pdf_") as folder:
        printed = Path(folder) / "page.pdf"
        words = [browser, "--headless", "--disable-gpu", "--no-pdf-header-footer", f"--user-data-dir={folder}/profile"]
        if os.geteuid() == 0:
            words.append("--no-sandbox")  # Chromium has no sandbox for root, and does not start without this.
        words += [f"--print-to-pdf={printed}", page.resolve().as_uri()]
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=_SECONDS, check=False)  # noqa: S603  no shell; the program was found in PATH
        except subprocess.TimeoutExpired as error:
            raise InstallError(f"{browser}: did not print {page} within {_SECONDS} seconds") from error
        if done.returncode or not printed.is_file():
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise InstallError(f"{browser}: did not print {page} ({last}); print it from any browser")
        write_whole(output, printed.read_bytes())
