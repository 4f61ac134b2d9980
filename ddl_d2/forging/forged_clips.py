"""Making a whole dataset of real and forged clips on disk, in LAV-DF's layout.

    ROOT/{train,dev}/s1_bbaf2n_0_real.mp4      face crops with sound; of each draw one real clip, and its forgeries
    ROOT/{train,dev}/s1_bbaf2n_0_both.mp4      forged in the picture ("visual"), the sound ("audio"), or "both"
    ROOT/metadata.json                         LAV-DF's labels, with `visual_fake_segments`, `audio_fake_segments` and
                                               `forgery`, everything that was drawn
    ROOT/manifest.json                         settings, sources, what was left out

Every clip is drawn from (seed, split, source, draw) alone: the number of workers changes nothing. Real clips are cut,
resized and encoded as forged ones are.
"""

from __future__ import annotations

import functools
import multiprocessing
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from ddl_d2.config.span_options import SpanOptions
from ddl_d2.errors import ForgeryError, ImageReadError
from ddl_d2.faces.cache import CachedFaceFinder
from ddl_d2.faces.crop import cut
from ddl_d2.faces.face import Face
from ddl_d2.faces.finders import make_finder
from ddl_d2.faces.track import clip_window, track_face
from ddl_d2.forging.forged_folder import check_folder
from ddl_d2.forging.self_blend import NoSuitableFaceError
from ddl_d2.forging.spans import MODALITIES, ForgedClip, Span, forge_clip, speaking, with_decoys
from ddl_d2.io.atomic import write_json
from ddl_d2.io.clip import Clip, read_clip, read_sound
from ddl_d2.io.write_video import write_clip
from ddl_d2.utils.segments import union

MADE_BY = "ddl-d2 make-temporal-forgeries"
FOLDERS = {"train": "train", "valid": "dev"}
"""Split -> its folder, as LAV-DF calls it."""
Words = tuple[tuple[float, float], ...]

_CRF = (18, 29)
_BIT_RATE = 64000
_DONOR_SECONDS = 20.0


@dataclass(frozen=True)
class ForgedClipsSettings:
    """What a set of forged clips is to be.

    Attributes:
        count: draws of each source; each gives a real clip and one forged in each of `modalities`.
        seed: of all that is drawn.
        size: side of the clips, pixels.
        margin: left around the face, as a share of its size; drawn from this range.
        silence: seconds left before somebody speaks first and after they speak last. Spans of sound lie where somebody
            speaks: in a clip that is silent for long, loudness alone would tell where to look.
        max_seconds: sources that last longer are left out.
        modalities: of `forging.spans.MODALITIES`.
        finder: "dlib" or "yunet".
        yunet_model: the model file that "yunet" needs.
        options: what spans are drawn from.

    Raises:
        ForgeryError: a value out of its limits.
    """

    count: int = 4
    seed: int = 0
    size: int = 224
    margin: tuple[float, float] = (0.1, 0.25)
    silence: float = 0.05
    max_seconds: float = 60.0
    modalities: tuple[str, ...] = MODALITIES
    finder: str = "dlib"
    yunet_model: str = ""
    options: SpanOptions = field(default_factory=SpanOptions)

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ForgeryError(f"count must be at least 1, not {self.count}")
        if self.seed < 0:
            raise ForgeryError(f"the seed must not be negative, not {self.seed}")
        if not 32 <= self.size <= 1024 or self.size % 2:
            raise ForgeryError(f"the size must be even and from 32 to 1024 pixels, not {self.size}")
        if not 0 <= self.margin[0] <= self.margin[1]:
            raise ForgeryError(f"the margin must be a range (smallest, largest) from 0 on, not {self.margin}")


@dataclass(frozen=True)
class ClipSource:
    """A real clip to start from.

    Attributes:
        path: of the file.
        name: unique in its split, for the files made of it.
        words: (start, end) of each word in seconds; may be empty.
    """

    path: Path
    name: str
    words: Words = ()


@dataclass(frozen=True)
class _Job:
    root: Path
    split: str
    index: int
    sources: tuple[ClipSource, ...]
    settings: ForgedClipsSettings


def make_forged_clips(
    root: Path,
    sources: Mapping[str, Sequence[ClipSource]],
    settings: ForgedClipsSettings,
    *,
    workers: int = 1,
    overwrite: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Make a set of real and forged clips.

    Args:
        root: its folder.
        sources: split ("train", "valid") -> real clips; no person should be in both.
        settings: what to make.
        workers: processes; 1 works in this one.
        overwrite: delete a set that this function made there before; otherwise it must be empty.
        progress: whether to show a progress bar.

    Returns:
        The manifest.

    Raises:
        ForgeryError: `root` may not be written, or no source can be used.
        FaceFinderUnavailableError: a library or model is missing.
    """
    cv2.setNumThreads(1)  # processes share the machine, and must be forked without threads
    _finder(settings.finder, settings.yunet_model)  # says at once if it is not there
    shown = {**asdict(settings), "options": asdict(settings.options)}
    check_folder(root, shown, "overwrite" if overwrite else "refuse", made_by=MADE_BY)
    for folder in FOLDERS.values():
        shutil.rmtree(root / folder, ignore_errors=True)
    manifest = {"made_by": MADE_BY, "complete": False, "settings": shown, "sources": {}, "left_out": {}}
    write_json(root / "manifest.json", manifest)  # first: it marks the folder as ours
    jobs = [
        _Job(root, split, index, tuple(group), settings)
        for split, group in sources.items()
        for index in range(len(group))
    ]
    rows: list[dict[str, Any]] = []
    left_out: dict[str, str] = {}
    for made, reasons in tqdm(_run(jobs, workers), total=len(jobs), unit="clip", disable=None if progress else True):
        rows += made
        left_out |= reasons
    if not rows:
        raise ForgeryError(f"none of the {len(jobs)} clips can be used: {next(iter(left_out.items()), '')}")
    write_json(root / "metadata.json", rows)
    counts = {split: sum(row["split"] == folder for row in rows) for split, folder in FOLDERS.items()}
    manifest |= {"complete": True, "clips": counts, "left_out": left_out}
    manifest["sources"] = {split: [source.name for source in group] for split, group in sources.items()}
    write_json(root / "manifest.json", manifest)
    return manifest


@functools.cache
def _finder(name: str, model: str) -> CachedFaceFinder:
    return CachedFaceFinder(make_finder(name, yunet_model=model or None))


def _run(jobs: Sequence[_Job], workers: int) -> Iterator[tuple[list[dict[str, Any]], dict[str, str]]]:
    if workers <= 1 or len(jobs) < 2:
        yield from map(_make, jobs)
        return
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context(method))
    try:
        yield from pool.map(_make, jobs)
    finally:
        pool.shutdown(cancel_futures=True)


def _make(job: _Job) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Make all clips of one source: their rows, and name -> reason for what was left out."""
    settings, source = job.settings, job.sources[job.index]
    try:
        whole = read_clip(source.path, max_seconds=settings.max_seconds)
    except ImageReadError as error:
        return [], {source.name: f"cannot be read: {error.reason}"}
    whole, words = _trimmed(whole, source.words, settings.silence)
    faces = track_face(list(whole.frames), _finder(settings.finder, settings.yunet_model))
    if not faces:
        return [], {source.name: "no face is found in most of its frames"}
    rows: list[dict[str, Any]] = []
    left_out: dict[str, str] = {}
    for draw in range(settings.count):
        key = (settings.seed, list(FOLDERS).index(job.split), job.index, draw)
        clip, placed = _face_crop(whole, faces, np.random.default_rng(key), settings)
        real = f"{FOLDERS[job.split]}/{source.name}_{draw}_real.mp4"
        rows.append(
            _write(job, real, _left_alone(clip, np.random.default_rng((*key, 0)), settings), None, (*key, 9, 0))
        )
        for number, modality in enumerate(settings.modalities, start=1):
            name = f"{FOLDERS[job.split]}/{source.name}_{draw}_{modality}.mp4"
            rng = np.random.default_rng((*key, number))
            try:
                made = forge_clip(
                    clip,
                    rng,
                    settings.options,
                    faces=placed,
                    donor=functools.partial(_other_sound, job),
                    words=words,
                    modality=modality,
                )
            except (ForgeryError, NoSuitableFaceError) as error:
                left_out[name] = str(error)
                continue
            rows.append(_write(job, name, made, real, (*key, 9, number)))
    return rows, left_out


def _trimmed(clip: Clip, words: Words, silence: float) -> tuple[Clip, Words]:
    """A clip without most of the silence at its ends, and when its words are spoken then."""
    spoken = np.flatnonzero(speaking(clip))
    if not len(spoken):
        return clip, words
    left = round(silence * clip.fps)
    start, end = max(0, int(spoken[0]) - left), min(len(clip.frames), int(spoken[-1]) + 1 + left)
    moved = tuple((first - start / clip.fps, last - start / clip.fps) for first, last in words)
    return clip.part(start, end), moved


def _face_crop(
    whole: Clip, faces: list[Face], rng: np.random.Generator, settings: ForgedClipsSettings
) -> tuple[Clip, list[Face]]:
    """A clip cut to its face and resized, with the face's place in it."""
    window = clip_window(faces, whole.frames.shape[1:3], margin=float(rng.uniform(*settings.margin)))
    side, ratio = settings.size, settings.size / (window[2] - window[0])
    how = cv2.INTER_AREA if ratio < 1 else cv2.INTER_CUBIC
    frames = np.stack([cv2.resize(cut(frame, window), (side, side), interpolation=how) for frame in whole.frames])
    moved = np.array([[ratio, 0, -window[0] * ratio], [0, ratio, -window[1] * ratio]])
    return replace(whole, frames=frames), [face.moved(moved) for face in faces]


def _left_alone(clip: Clip, rng: np.random.Generator, settings: ForgedClipsSettings) -> ForgedClip:
    """A real clip, but for harmless edits."""
    changed, decoys = with_decoys(clip, rng, settings.options)
    return ForgedClip(changed, (), (), {"modality": "", "decoys": decoys})


def _other_sound(job: _Job, rng: np.random.Generator) -> np.ndarray | None:
    """The sound of another source of the split; None if there is no other, or it has none."""
    if len(job.sources) < 2:
        return None
    other = (job.index + int(rng.integers(1, len(job.sources)))) % len(job.sources)
    try:
        return read_sound(job.sources[other].path, seconds=_DONOR_SECONDS)
    except ImageReadError:  # it is left out, and says why, when its own turn comes
        return None


def _write(job: _Job, name: str, made: ForgedClip, original: str | None, key: tuple[int, ...]) -> dict[str, Any]:
    """Encode a clip; returns its labels."""
    rng = np.random.default_rng(key)
    crf, clip = int(rng.integers(*_CRF)), made.clip
    write_clip(job.root / name, clip, crf=crf, audio_bit_rate=_BIT_RATE)
    video, audio = (_seconds(spans, clip.fps) for spans in (made.video_spans, made.audio_spans))
    both = _seconds(union(made.video_spans, made.audio_spans), clip.fps)
    return {
        "file": name,
        "n_fakes": len(both),
        "fake_periods": both,
        "duration": clip.duration,
        "original": original,
        "modify_video": bool(video),
        "modify_audio": bool(audio),
        "split": FOLDERS[job.split],
        "video_frames": len(clip.frames),
        "audio_channels": int(clip.has_audio),
        "audio_frames": len(clip.audio) if clip.has_audio else 0,
        "visual_fake_segments": video,
        "audio_fake_segments": audio,
        "forgery": {"source": job.sources[job.index].name, "crf": crf, **made.record},
    }


def _seconds(spans: Sequence[Span], fps: float) -> list[list[float]]:
    """Spans in seconds, exact multiples of a frame's length to the microsecond."""
    return [[round(start / fps, 6), round(end / fps, 6)] for start, end in spans]
