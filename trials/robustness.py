"""Trial: a robustness run shows its progress, is killed, goes on, and ends as one that was not killed.

    python trials/robustness.py [--short]

300 images (8 with --short) under 12 corruptions at 5 levels by the smallest model. One run is left alone; another is
killed (SIGKILL) three times after some images and started again. Their reports and lines must be the same to the byte,
no image that was done may be predicted again, the progress bar must be seen, and memory must not grow with the images.
"""

from __future__ import annotations

import argparse
import json
import os
import pty
import re
import signal
import subprocess
import sys
import tempfile
import termios
import threading
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from _trial import Tally
from detectron2.modeling import build_model

import ddl_d2
from ddl_d2.checkpoint.saving import save_tensors
from ddl_d2.data.transforms.corruptions import CORRUPTIONS
from tests.conftest import ROOT, TINY, make_tiny_set

REPORTS = ("robustness.json", "robustness.csv", "robustness.md", "robustness.png")


class Run:
    """One process of `ddl-d2 robustness`, whose progress bar is read as a terminal would show it."""

    def __init__(self, words: list[str]) -> None:
        reader, writer = pty.openpty()
        termios.tcsetwinsize(writer, (24, 100))  # without a width no bar is drawn
        command = [sys.executable, str(ROOT / "tools/robustness.py"), *words]
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=writer, env=os.environ | {"TERM": "xterm"}
        )
        os.close(writer)
        self.seen = ""
        self.peak = 0
        self.early = 0
        self._thread = threading.Thread(target=self._read, args=(reader,))
        self._thread.start()

    def _read(self, reader: int) -> None:
        while True:
            try:
                part = os.read(reader, 4096)
            except OSError:  # how Linux says that the other end is closed
                break
            if not part:
                break
            self.seen += part.decode(errors="replace")
            self._look_at_memory()
        os.close(reader)

    def _look_at_memory(self) -> None:
        try:
            status = Path(f"/proc/{self._process.pid}/status").read_text()
        except OSError:
            return
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        self.peak = int(found[1]) if found else self.peak
        if self.progress() <= 3:
            self.early = self.peak

    def progress(self) -> int:
        """The images done, as the bar says."""
        found = re.findall(r"(\d+)/\d+ \[", self.seen)
        return int(found[-1]) if found else 0

    def kill_after(self, lines: int, results: Path) -> None:
        """Kill the process once so many images are on disk, or it has ended."""
        while self._process.poll() is None and _lines(results) < lines:
            time.sleep(0.02)
        self._process.send_signal(signal.SIGKILL)
        self.wait()

    def wait(self) -> int:
        """Wait for the end; returns the exit code."""
        assert self._process.stdout is not None
        self._process.stdout.read()
        code = self._process.wait()
        self._thread.join()
        return code


def _lines(path: Path) -> int:
    return len(path.read_text().splitlines()) - 1 if path.exists() else 0


def _weights(folder: Path) -> Path:
    small = ["INPUT.MIN_SIZE_TEST", "32", "INPUT.MAX_SIZE_TEST", "48"]
    cfg = ddl_d2.load_config(ROOT / "configs/quickstart/mask2former_efficientnet_lite0.yaml", [*TINY, *small])
    torch.manual_seed(0)
    save_tensors(str(folder / "tiny.safetensors"), build_model(cfg).state_dict(), config=cfg.dump())
    return folder / "tiny.safetensors"


def trial(folder: Path, tally: Tally, images: int) -> None:
    """Run with and without kills, and compare."""
    data = make_tiny_set(folder / "set", train=1, valid=images // 2)
    names = list(CORRUPTIONS)[:12]
    common = ["--weights", str(_weights(folder)), "--device", "cpu", "--dataset-root", str(data), "--split", "valid"]
    common += ["--batch-size", "16", "--corruptions", *names]

    alone = Run([*common, "--output", str(folder / "alone")])
    tally.check(alone.wait() == 0, "a run that is left alone", alone.seen[-500:])
    tally.check(alone.progress() == images, "its progress bar", alone.seen[-200:])
    content = json.loads((folder / "alone/robustness.json").read_text())
    tally.check(len(content["conditions"]) == 61, "12 corruptions, 5 levels and none", len(content["conditions"]))
    growth = (alone.peak - alone.early) / 1024
    tally.check(growth < 60, "memory does not grow with the images", f"{growth:.0f} MiB more than after 3")

    killed = folder / "killed"
    for share in (0.2, 0.5, 0.8):
        Run([*common, "--output", str(killed)]).kill_after(int(share * images), killed / "results.jsonl")
        done = _lines(killed / "results.jsonl")
        tally.check(int(share * images) <= done < images, f"killed after {share:.0%}", f"{done} of {images} images")
    before = (killed / "results.jsonl").read_text().splitlines()
    last = Run([*common, "--output", str(killed)])
    tally.check(last.wait() == 0, "the last run", last.seen[-500:])
    after = (killed / "results.jsonl").read_text().splitlines()
    whole = [line for line in before if line.endswith("}")]
    tally.check(after[: len(whole)] == whole, "no image is predicted again", "lines of before are not there")
    for name in REPORTS:
        same = (killed / name).read_bytes() == (folder / "alone" / name).read_bytes()
        tally.check(same, f"{name} is that of a run that was left alone")


def main() -> int:
    """Run the trial."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="8 images")
    args = parser.parse_args()
    tally = Tally("robustness")
    with tempfile.TemporaryDirectory() as folder:
        trial(Path(folder), tally, 8 if args.short else 300)
    return tally.finish()


if __name__ == "__main__":
    sys.exit(main())
