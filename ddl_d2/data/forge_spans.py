"""Forging spans of clips while training: a real clip in, itself or a forgery of it out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from detectron2.config import CfgNode

from ddl_d2.config.dataclass_keys import options_of
from ddl_d2.config.span_options import SpanOptions
from ddl_d2.data.forging_augmentations import random_generator
from ddl_d2.errors import ConfigError, ForgeryError, ImageReadError
from ddl_d2.faces.face import FaceFinder
from ddl_d2.faces.track import track_face
from ddl_d2.forging.picture_spans import NEEDS_FACE
from ddl_d2.forging.self_blend import NoSuitableFaceError
from ddl_d2.forging.spans import ForgedClip, forge_clip, with_decoys
from ddl_d2.forging.speech import check_speech
from ddl_d2.io.clip import Clip, read_sound

FORGED_SIDE = 224
"""Clips are forged with their shorter side at most so long, pixels, as published sets are stored."""
_DONOR_SECONDS = 20.0


class SpanForger:
    """The clip mapper's `forge` function; everything is drawn from `np.random`, which the loader seeds.

    Args:
        finder: finds faces; give one that remembers (`CachedFaceFinder`), it is the slowest step by far.
        options: what spans are drawn from.
        probability: how likely a real clip is forged, in [0, 1].
        rows: of the training set, whose real clips lend their sound.
    """

    def __init__(
        self,
        finder: FaceFinder,
        options: SpanOptions,
        probability: float,
        rows: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self.finder, self.options, self.probability, self.rows = finder, options, probability, rows

    def __call__(self, clip: Clip, row: Mapping[str, Any]) -> ForgedClip:
        """Forge a real clip, or leave it but for harmless edits.

        Raises:
            ImageReadError: nothing in the clip can be forged. The loader counts the clip and draws another.
        """
        rng = random_generator()
        if rng.random() >= self.probability:
            changed, decoys = with_decoys(clip, rng, self.options)
            return ForgedClip(changed, (), (), {"decoys": decoys})
        faces = track_face(list(clip.frames), self.finder)
        try:
            return forge_clip(clip, rng, self.options, faces=faces, donor=self._other_sound)
        except (ForgeryError, NoSuitableFaceError) as error:
            raise ImageReadError(row["file_name"], f"cannot be forged in part: {error}") from error

    def _other_sound(self, rng: np.random.Generator) -> np.ndarray | None:
        """The sound of a real clip of the training set."""
        if not len(self.rows):
            return None
        row = self.rows[int(rng.integers(len(self.rows)))]
        return None if row.get("is_fake") else read_sound(row["file_name"], seconds=_DONOR_SECONDS)


def shrunk_for_forging(frame: np.ndarray) -> np.ndarray:
    """Resize a frame (uint8 H×W×3) so that its shorter side is at most `FORGED_SIDE`."""
    ratio = FORGED_SIDE / min(frame.shape[:2])
    if ratio >= 1:
        return frame
    size = (round(frame.shape[1] * ratio), round(frame.shape[0] * ratio))
    return cv2.resize(frame, size, interpolation=cv2.INTER_AREA)


def build_span_forger(cfg: CfgNode, finder: FaceFinder, rows: Sequence[Mapping[str, Any]]) -> SpanForger:
    """Build what INPUT.SPANS asks for.

    Raises:
        ConfigError: a value of INPUT.SPANS is out of its limits, or no landmarks are looked for.
        ForgeryError: INPUT.SPANS.SPEECH names a program that is not installed.
    """
    spans = cfg.INPUT.SPANS
    if not 0 <= spans.PROB <= 1:
        raise ConfigError(f"INPUT.SPANS.PROB is {spans.PROB}: it must be in [0, 1]")
    try:
        options = options_of(SpanOptions, spans)
    except ValueError as error:
        raise ConfigError(f"INPUT.SPANS: {error}") from error
    if NEEDS_FACE.intersection(options.visual_kinds) and not cfg.INPUT.FACES.LANDMARKS:
        raise ConfigError("INPUT.SPANS.VISUAL_KINDS that forge a face need INPUT.FACES.LANDMARKS True")
    if options.speech:
        check_speech()
    return SpanForger(finder, options, spans.PROB, rows)
