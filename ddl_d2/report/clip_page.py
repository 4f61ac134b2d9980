"""The page of a clip's timeline: one HTML file that works from disk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import cv2
import numpy as np

from ddl_d2.inference.face_tracks import FaceTrack
from ddl_d2.report.html import data_uri, escape, facts, page, paragraph, section, table
from ddl_d2.report.map_layer import shown_image
from ddl_d2.report.record_page import verdict_box

_WIDTH, _HEIGHT = 1000, 80
_FACE_SIDE = 256


def clip_page(found: Mapping[str, Any], tracks: list[FaceTrack], keys: Iterable[tuple[FaceTrack, np.ndarray]]) -> str:
    """The page.

    Args:
        found: of `clip_timeline.timeline`.
        tracks: its faces.
        keys: a key frame (uint8 H×W×3) of some of them.
    """
    parts = [
        "<h1>Timeline of a clip</h1>",
        paragraph(f"{found['file']} · {found['seconds']:.1f} s, {found['frames']} frames looked at", kind="faint"),
        verdict_box(found["verdict"], "clip"),
        paragraph(
            f"Score {found['score']:.3f}: the {found['video_score']} of the frames' scores, uncalibrated. Dashed line: "
            f"the threshold {found['threshold']:g}. A face that leaves and comes back counts as another."
        ),
        section("Faces over time", *(_curve(track, found) for track in tracks))
        if tracks
        else paragraph("No face was found in any frame."),
        section("Segments above the threshold", _segments(found)),
        section("Key frames", *(_key_frame(track, image) for track, image in keys)),
        section("Identification", facts(_identified(found))),
    ]
    return page(f"Timeline: {found['file']}", "\n".join(parts))


def _curve(track: FaceTrack, found: Mapping[str, Any]) -> str:
    """The scores of a face over the time of the clip."""
    last = max(found["seconds"], 1e-3)
    points = [(_WIDTH * one.seconds / last, _HEIGHT * (1 - one.score)) for one in track.sightings]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    level = _HEIGHT * (1 - found["threshold"])
    name = f"Face {track.number}: mean {track.mean_score:.3f}, highest {track.highest.score:.3f}"
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2"/>' for x, y in points)
    return (
        f'<figure class="curve"><figcaption>{escape(name)}</figcaption>'
        f'<svg viewBox="-4 -4 {_WIDTH + 8} {_HEIGHT + 8}" role="img" aria-label="{escape(name)}">'
        f'<rect width="{_WIDTH}" height="{_HEIGHT}"/><path d="M0 {level:.1f}H{_WIDTH}"/>'
        f'<polyline points="{line}"/>{dots}</svg></figure>'
    )


def _segments(found: Mapping[str, Any]) -> str:
    rows = [
        (face["face"], f"{start:.2f} s", f"{end:.2f} s") for face in found["faces"] for start, end in face["segments"]
    ]
    if not rows:
        return paragraph("None.")
    return table(("Face", "from", "to"), rows, caption="First and last frame of each segment")


def _key_frame(track: FaceTrack, image: np.ndarray) -> str:
    """The frame in which a face scores highest, and the face by itself."""
    best = track.highest
    x0, y0, x1, y1 = (round(value) for value in best.box)
    marked = image.copy()
    width = max(2, max(image.shape[:2]) // 250)
    for color, line in (((0, 0, 0), width + 2), ((255, 255, 255), width)):
        cv2.rectangle(marked, (x0, y0), (x1 - 1, y1 - 1), color, line)
    face = image[max(y0, 0) : y1, max(x0, 0) : x1]
    side = cv2.resize(face, (_FACE_SIDE, max(1, round(_FACE_SIDE * face.shape[0] / face.shape[1]))))
    said = f"Face {track.number} at {best.seconds:.2f} s (frame {best.frame}): score {best.score:.3f}"
    return (
        f'<figure><figcaption>{escape(said)}</figcaption><div class="pair">'
        f'<img src="{data_uri(side, quality=85)}" alt="The face">'
        f'<img src="{data_uri(_small(marked), quality=80)}" alt="The frame, with the face in a frame"></div></figure>'
    )


def _small(image: np.ndarray) -> np.ndarray:
    shown = shown_image(image)
    return cv2.resize(shown, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) if max(shown.shape) > 640 else shown


def _identified(found: Mapping[str, Any]) -> list[tuple[str, object]]:
    model = found["model"]
    return [
        ("sha256 of the clip", found["sha256"]),
        ("Architecture", model["meta_architecture"]),
        ("sha256 of the weights", model["weights_sha256"]),
        ("sha256 of the config", model["config_sha256"]),
        ("Frames without a face", found["without_face"]),
    ]
