"""Follow the faces of a clip and say when their scores are above the threshold.

    ddl-d2 timeline clip.mp4 --output clip_timeline
    ddl-d2 timeline clip.mp4 --output clip_timeline --per-second 10 --threshold 0.3

Writes timeline.json, sightings.csv (a line for each face in each frame) and timeline.html (each face's scores over
time, segments, key frames) into the folder, and frames.jsonl as it goes: a second call goes on where the first ended.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from ddl_d2.cli.common import cli_errors, probability
from ddl_d2.inference.model import load_model
from ddl_d2.io.atomic import write_json, write_whole
from ddl_d2.report.clip_page import clip_page
from ddl_d2.report.clip_timeline import key_frames, look_at_frames, sightings_csv, timeline, tracks_of
from ddl_d2.report.words import headline
from ddl_d2.utils.text import printable


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path, metavar="FILE", help="a video")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of the results")
    parser.add_argument(
        "--weights", metavar="FILE", help="trained weights, .safetensors or .pth (default: those that come with ddl_d2)"
    )
    parser.add_argument("--config", metavar="NAME", help="a config's name or file (default: the weights' own)")
    parser.add_argument("--threshold", type=probability, default=0.5, help="the operating point (%(default)s)")
    parser.add_argument(
        "--per-second", type=_rate, default=5.0, metavar="N", help="frames to look at; fewer lose faces (%(default)s)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace results of another clip or model")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 ... (default: a GPU if there is one)")
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], metavar="KEY VALUE", help="config changes")
    return parser


@cli_errors()
def main(argv: Sequence[str] | None = None) -> int:
    """Write the timeline of a clip; returns the exit code."""
    args = build_parser().parse_args(argv)
    model = load_model(args.weights, config=args.config, device=args.device, threshold=args.threshold, opts=args.opts)
    with tqdm(unit="frame", disable=None) as bar:

        def advance(done: int, total: int) -> None:
            bar.total, bar.n = total, done
            bar.refresh()

        frames = look_at_frames(
            args.clip, model, args.output, per_second=args.per_second, overwrite=args.overwrite, on_frame=advance
        )
    found = timeline(args.clip, model, frames, per_second=args.per_second, threshold=args.threshold)
    tracks = tracks_of(frames, args.per_second)
    keys = key_frames(args.clip, tracks, model.cfg.INPUT.MAX_PIXELS)
    write_json(args.output / "timeline.json", found)
    write_whole(args.output / "sightings.csv", sightings_csv(tracks))
    write_whole(args.output / "timeline.html", clip_page(found, tracks, keys))
    print(f"{headline(found['verdict'])}  score {found['score']:.4f}  {printable(args.clip)}")
    for face in found["faces"]:
        times = ", ".join(f"{start:.2f} to {end:.2f} s" for start, end in face["segments"]) or "never"
        print(f"  face {face['face']}: mean {face['mean_score']:.4f}; above {args.threshold:g}: {times}")
    print(f"{found['frames']} frames; see {printable(args.output / 'timeline.html')}")
    return 0


def _rate(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1000:
        raise argparse.ArgumentTypeError("must be above 0, and 1000 at most")
    return value
