"""FaceForensics++ (and its DeepFakeDetection part) as its download script lays it out.

    original_sequences/{youtube,actors}/{raw|c0,c23,c40}/videos/071.mp4
    manipulated_sequences/<method>/{raw|c0,c23,c40}/videos/071_054.mp4     target 071 with the face or driver 054
    manipulated_sequences/<method>/masks/videos/071_054.mp4                no compression level; none for FaceShifter
    train.json, val.json, test.json (or in splits/)                        the official pairs [["071", "054"], ...]

DeepfakeBench's frames/<video>/ and masks/<video>/ beside videos/ are understood too (`video.videos_in`).
"""

from __future__ import annotations

import os

from ddl_d2.data.datasets.listing import Lister
from ddl_d2.data.datasets.text_files import read_json
from ddl_d2.data.datasets.video import Video, VideoOptions, subfolders_and_files, videos_in
from ddl_d2.errors import DatasetError

FAKES, REALS = "manipulated_sequences", "original_sequences"
METHODS = ("Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures", "FaceShifter", "DeepFakeDetection")
LEVELS = ("raw", "c0", "c23", "c40")
ACTOR_METHOD = "DeepFakeDetection"  # names its videos by actors: no official split covers it
_SPLIT_FILES = {"train": "train.json", "valid": "val.json", "test": "test.json"}
_ALIASES = {"raw": ("raw", "c0"), "c0": ("c0", "raw")}
_LAYOUT = f"{FAKES}/<method>/<compression>/videos/*.mp4 and {REALS}/youtube/<compression>/videos/*.mp4"


def is_faceforensics(root: str) -> bool:
    """Tell whether a folder looks like FaceForensics++."""
    return any(os.path.isdir(os.path.join(root, name)) for name in (FAKES, REALS))


def list_faceforensics(lister: Lister, split: str | None, options: VideoOptions) -> list[Video]:
    """List the videos of a split, those of `original_sequences` first.

    The split's pairs [A, B] give the reals A and B and the fakes A_B and B_A of each method. DeepFakeDetection belongs
    to no split: it is used, with its actors, if no split is asked for, or wholly as "test" if `options.methods` names
    it. Videos of a split that are not on disk are reported.

    Raises:
        DatasetError: an unknown level or method, a folder or a split's file that is missing; says what was expected.
    """
    root = lister.root
    if options.compression not in LEVELS:
        raise DatasetError(f"DATASETS.FF_COMPRESSION {options.compression!r} is not one of {', '.join(LEVELS)}")
    if not is_faceforensics(root):
        raise DatasetError(f"{root}: neither {FAKES}/ nor {REALS}/ is in it. Expected {_LAYOUT}.")
    methods = _methods(lister, split, options)
    pairs = None if split is None else _read_pairs(lister, split)
    sources = {"youtube": pairs is None or bool(set(methods) - {ACTOR_METHOD}) or not methods}
    sources["actors"] = ACTOR_METHOD in methods or pairs is None
    videos: list[Video] = []
    for source in (name for name, used in sources.items() if used):
        folder = f"{REALS}/{source}/{_level(lister, f'{REALS}/{source}', options.compression)}"
        wanted = None if pairs is None or source == "actors" else sorted({i for pair in pairs for i in pair})
        videos += [Video(name, 0) for _, name in _chosen(lister, folder, wanted)]
    for method in methods:
        base = f"{FAKES}/{method}"
        wanted = None
        if pairs is not None and method != ACTOR_METHOD:
            wanted = sorted(f"{a}_{b}" for pair in pairs for a, b in (pair, pair[::-1]))
        masks = _masks(lister, base)
        chosen = _chosen(lister, f"{base}/{_level(lister, base, options.compression)}", wanted)
        videos += [Video(name, 1, method, masks.get(stem, "")) for stem, name in chosen]
    if not videos:
        raise DatasetError(f"{root}: no video of compression {options.compression}. Expected {_LAYOUT}.")
    return videos


def _methods(lister: Lister, split: str | None, options: VideoOptions) -> list[str]:
    there = subfolders_and_files(lister, FAKES)[0]
    named = list(options.methods)
    for method in named:
        if method not in METHODS:
            raise DatasetError(f"DATASETS.FF_METHODS: {method!r} is not one of {', '.join(METHODS)}")
        level = _level(lister, f"{FAKES}/{method}", options.compression)
        if not os.path.isdir(os.path.join(lister.root, FAKES, method, level)):
            raise DatasetError(
                f"{os.path.join(lister.root, FAKES, method, level)}: no such folder, but DATASETS.FF_METHODS names "
                f"{method}. Expected videos/*.mp4 in it. {FAKES}/ holds {', '.join(there) or 'nothing'}."
            )
    if split in ("train", "valid"):
        if named == [ACTOR_METHOD]:
            raise DatasetError(f"{lister.root}: {ACTOR_METHOD} has no official {split} split; use it as test")
        named = [method for method in named if method != ACTOR_METHOD]
    if named:
        return named
    return [method for method in METHODS if method in there and (split is None or method != ACTOR_METHOD)]


def _level(lister: Lister, base: str, level: str) -> str:
    """The name of the level's folder: "raw" and "c0" are two names of one."""
    for name in _ALIASES.get(level, (level,)):
        if lister.stamps.is_folder(os.path.join(lister.root, base, name)):
            return name
    return level


def _chosen(lister: Lister, folder: str, wanted: list[str] | None) -> list[tuple[str, str]]:
    """(stem, path) of the wanted videos of a folder, None = all; those that are missing are reported."""
    found = videos_in(lister, folder)
    if wanted is None:
        return sorted(found.items())
    for stem in wanted:
        if stem not in found:
            lister.report.add("missing_file", f"{folder}/videos/{stem}.mp4")
    return [(stem, found[stem]) for stem in wanted if stem in found]


def _masks(lister: Lister, base: str) -> dict[str, str]:
    """Stem -> mask video, or DeepfakeBench's folder of mask images (which come from c23 whatever the level)."""
    masks = {stem: name for stem, name in videos_in(lister, f"{base}/masks").items() if "/videos/" in name}
    for name in subfolders_and_files(lister, f"{base}/c23/masks")[0]:
        masks[name] = f"{base}/c23/masks/{name}"
    return masks


def _read_pairs(lister: Lister, split: str) -> list[tuple[str, str]]:
    if split not in _SPLIT_FILES:
        raise DatasetError(f"{lister.root}: FaceForensics++ has the splits train, valid and test, not {split!r}")
    name = _SPLIT_FILES[split]
    tried = [os.path.join(lister.root, folder, name) for folder in ("", "splits")]
    path = next((path for path in tried if lister.stamps.is_file(path)), None)
    if path is None:
        raise DatasetError(
            f"{' or '.join(tried)}: no such file. Expected the official {split} split, a JSON list of pairs of ids "
            'such as [["071", "054"], ...] (dataset/splits of the FaceForensics repository).'
        )
    lister.stamps.note(path)
    pairs = read_json(path)
    if not isinstance(pairs, list) or not all(_is_pair(pair) for pair in pairs):
        raise DatasetError(f'{path}: expected a list of pairs of ids such as [["071", "054"], ...]')
    return [(first, second) for first, second in pairs]


def _is_pair(entry: object) -> bool:
    return isinstance(entry, list) and len(entry) == 2 and all(isinstance(i, str) and i.isalnum() for i in entry)
