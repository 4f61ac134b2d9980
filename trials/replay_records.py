"""Examinations repeated from their records: 100 repetitions, the same to the byte; and one flipped bit is found.

    python trials/replay_records.py [--replays 100] [--flips 300] [--seed 0]

Ten images (photographs of scikit-image and cuts of them, in three formats) are examined with the weights that ship.
Each record is repeated ten times, the first time in a fresh process. Then bits are flipped, one at a time, at random
places of each file of the folder, and the check of the chain has to find each. Exits 1 if any failed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import skimage
from _trial import Tally
from PIL import Image

from ddl_d2.cli import examine
from ddl_d2.errors import RecordError
from ddl_d2.report.chain import verify_chain
from ddl_d2.report.repeat import repeat

KINDS = (("JPEG", {"quality": 85}), ("PNG", {}), ("WEBP", {"quality": 80}))


def write_images(folder: Path) -> list[Path]:
    """Ten images, with and without faces."""
    data = Path(skimage.__file__).parent / "data"
    face = Image.open(data / "astronaut.png").convert("RGB")
    images = [face, face.crop((100, 0, 400, 300)), face.resize((300, 300)), face.rotate(10), face.convert("L")]
    images += [Image.open(data / name) for name in ("coffee.png", "chelsea.png", "camera.png", "cell.png", "page.png")]
    paths = []
    for number, image in enumerate(images):
        kind, options = KINDS[number % len(KINDS)]
        paths.append(folder / f"{number}.{kind.lower()}")
        image.save(paths[-1], kind, **options)
    return paths


def repeat_all(tally: Tally, records: list[Path], replays: int) -> None:
    for number in range(replays):
        path, again = records[number % len(records)], number // len(records)
        if again == 0:
            command = [sys.executable, "-m", "ddl_d2.cli.main", "replay", str(path)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            tally.check(done.returncode == 0, f"{path.name} in a fresh process", (done.stdout + done.stderr)[-300:])
        else:
            result = repeat(path)
            tally.check(result.same and not result.differences, f"{path.name}, {again}", result.differences)


def flip_bits(tally: Tally, folder: Path, flips: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    files = sorted(folder.iterdir())
    for number in range(flips):
        path = files[number % len(files)]
        content = path.read_bytes()
        place, bit = int(rng.integers(len(content))), int(rng.integers(8))
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :])
        try:
            verify_chain(folder)
            found = False
        except RecordError:
            found = True
        path.write_bytes(content)
        tally.check(found, f"bit {bit} of byte {place} of {path.name}", "was not found")
    tally.check(len(verify_chain(folder)) == 10, "the chain as it was")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replays", type=int, default=100)
    parser.add_argument("--flips", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    tally = Tally("replay_records")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = write_images(folder)
        code = examine.main([*map(str, images), "--output", str(folder / "case"), "--device", "cpu"])
        tally.check(code == 0, "examining ten images", f"exit code {code}")
        records = sorted((folder / "case").glob("*.json"))
        repeat_all(tally, records, args.replays)
        flip_bits(tally, folder / "case", args.flips, args.seed)
    return tally.finish()


if __name__ == "__main__":
    sys.exit(main())
