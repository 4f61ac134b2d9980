"""Every dataset that docs/reproduce.md names, in miniature: real faces, forged ones, a few frames a video."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path

import av
import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ddl_d2.data.datasets.celeb_df import LIST_NAME
from ddl_d2.faces.cache import CachedFaceFinder
from ddl_d2.faces.dlib_finder import DlibFaceFinder
from ddl_d2.faces.face import Face
from ddl_d2.forging.forged_dataset import ForgedDatasetSettings, make_forged_dataset
from ddl_d2.forging.photos import PhotoFile, builtin_photos, find_faces
from ddl_d2.forging.self_blend import self_blend

METHODS = ("Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures")
_FRAMES = 3
_SIDE = 192
# Width of a face in a video, pixels.
_FACE = 80


def make_data(root: Path) -> Path:
    """Make all of them under `root`, each in the folder that the page puts under /data; returns `root`."""
    finder = CachedFaceFinder(DlibFaceFinder())
    _make_ddl(root / "ddl", finder)
    photos, _ = find_faces(builtin_photos(), finder)
    maker = VideoMaker(photos)
    _make_faceforensics(root / "FaceForensics++", maker)
    _make_celeb_df(root / "Celeb-DF-v2", maker)
    _make_dfdcp(root / "dfdcp", maker)
    _make_dfdc(root / "dfdc", maker)
    return root


class VideoMaker:
    """Writes videos of one face each, real or self-blended, no two alike.

    Args:
        photos: where faces are taken from, with their landmarks.
    """

    def __init__(self, photos: list[PhotoFile]) -> None:
        self.cuts = [self._cut(photo) for photo in photos]
        self.made = 0

    def write(self, path: Path, *, fake: bool, mask: Path | None = None) -> None:
        """Write a video; `mask` is where the video of a fake's masks goes."""
        self.made += 1
        rng = np.random.default_rng(self.made)
        image, face = self.cuts[self.made % len(self.cuts)]
        tinted = np.clip(image.astype(np.int16) + rng.integers(-25, 26, 3), 0, 255).astype(np.uint8)
        forgery = self_blend(tinted, [face], rng)
        shown = forgery.image if fake else tinted
        _write_video(path, [np.roll(shown, 2 * step, axis=1) for step in range(_FRAMES)])
        if mask is not None:
            white = np.repeat(forgery.mask[..., None], 3, axis=2) * np.uint8(255)
            _write_video(mask, [np.roll(white, 2 * step, axis=1) for step in range(_FRAMES)])

    @staticmethod
    def _cut(photo: PhotoFile) -> tuple[np.ndarray, Face]:
        """A square around a face of `_FACE` pixels."""
        face = max(photo.faces, key=lambda one: one.width)
        scale = _FACE / face.width
        shift = _SIDE / 2 - scale * face.landmarks.mean(0)
        matrix = np.array([[scale, 0.0, shift[0]], [0.0, scale, shift[1]]])
        image = cv2.warpAffine(photo.read(), matrix, (_SIDE, _SIDE), borderMode=cv2.BORDER_REFLECT_101)
        return image, face.moved(matrix)


def _make_ddl(root: Path, finder: CachedFaceFinder) -> None:
    """DDL-I; its test split is its validation split once more."""
    settings = ForgedDatasetSettings(source="builtin", count=24, seed=0, size=_SIDE, valid_share=0.34)
    make_forged_dataset(root, builtin_photos(), settings, finder=finder, progress=False)
    shutil.copytree(root / "valid", root / "test")


def _make_faceforensics(root: Path, maker: VideoMaker) -> None:
    """Two real videos a split, and both forgeries of the pair by each method."""
    for split, pair in {"train": ("000", "001"), "val": ("002", "003"), "test": ("004", "005")}.items():
        (root / f"{split}.json").parent.mkdir(parents=True, exist_ok=True)
        (root / f"{split}.json").write_text(json.dumps([pair]))
        for name in pair:
            maker.write(root / f"original_sequences/youtube/raw/videos/{name}.mp4", fake=False)
        for method in METHODS:
            for name in ("_".join(pair), "_".join(pair[::-1])):
                base = root / "manipulated_sequences" / method
                maker.write(base / f"raw/videos/{name}.mp4", fake=True, mask=base / f"masks/videos/{name}.mp4")


def _make_celeb_df(root: Path, maker: VideoMaker) -> None:
    """Two real and two fake videos to test on, in the list with its labels the other way round."""
    lines = []
    for name in ("Celeb-real/id0_0000.mp4", "YouTube-real/00000.mp4"):
        maker.write(root / name, fake=False)
        lines.append(f"1 {name}")
    for name in ("Celeb-synthesis/id0_id1_0000.mp4", "Celeb-synthesis/id1_id0_0000.mp4"):
        maker.write(root / name, fake=True)
        lines.append(f"0 {name}")
    (root / LIST_NAME).write_text("\n".join(lines) + "\n")


def _make_dfdcp(root: Path, maker: VideoMaker) -> None:
    entries = {}
    labels = {"original_videos/1/a.mp4": "real", "method_A/1/b.mp4": "fake", "method_B/1/c.mp4": "fake"}
    for name, label in labels.items():
        maker.write(root / name, fake=label == "fake")
        entries[name] = {"label": label, "set": "test"}
    (root / "dataset.json").write_text(json.dumps(entries))


def _make_dfdc(root: Path, maker: VideoMaker) -> None:
    (root / "test/videos").mkdir(parents=True)
    rows = [("a.mp4", 0), ("b.mp4", 1), ("c.mp4", 1)]
    for name, label in rows:
        maker.write(root / "test/videos" / name, fake=bool(label))
    with open(root / "test/labels.csv", "w", newline="") as out:
        csv.writer(out).writerows([("filename", "label"), *rows])


def _write_video(path: Path, images: list[np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25, options={"qscale": "2", "flags": "qscale"})
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
