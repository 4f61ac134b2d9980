"""What a model says of an image or a clip, as findings."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from ddl_d2.inference.fragility import Fragility
from ddl_d2.inference.prediction import Prediction
from ddl_d2.inference.summary import PredictionSummary
from ddl_d2.inference.video import VideoPrediction
from ddl_d2.predictions.calibration import Calibration
from ddl_d2.predictions.maps import quantize_map
from ddl_d2.predictions.verdict import INCONCLUSIVE, NO_FACE, says_forged
from ddl_d2.report.findings import DERIVED, INFERRED, NOT_AVAILABLE, OBSERVED, Finding
from ddl_d2.report.words import UNCALIBRATED, headline, meaning

_OTHER_CAUSES = (
    "strong compression, blur, noise, retouching or a filter",
    "light, pose, age, glasses, hair or make-up that were rare among the training images",
    "a screen or a print that was photographed",
)
_HIDDEN = (
    "a forgery of another kind than those that were trained on",
    "a forgery that later compression or scaling has covered",
)
_DIGITS = 6


def image_findings(prediction: Prediction, calibration: Calibration | None = None) -> list[Finding]:
    """The findings of a model on one image."""
    summary = prediction.summary
    size = Finding(
        "image_size", OBSERVED, "Size of the image", f"{summary.width} × {summary.height} pixels, upright.",
        ("It is the size of this file; the recording may have had another.",),
        value={"width": summary.width, "height": summary.height},
    )  # fmt: skip
    if summary.verdict == NO_FACE:
        return [size, _no_score("No face was found, and the model looks at faces only.")]
    if calibration is not None:
        decided = [weighed(summary, calibration)]
    else:
        decided = decision(summary.verdict, summary.threshold, "image", reason=summary.reason)
    return [
        size,
        _score(summary.score, "image"),
        *decided,
        fragility_finding(prediction.fragility),
        _map(prediction),
        *_faces(prediction),
    ]


def video_findings(prediction: VideoPrediction) -> list[Finding]:
    """The findings of a model on one clip."""
    faceless = set(prediction.without_face)
    frames = [
        {"frame": number, "seconds": round(seconds, 3), "score": None if number in faceless else round(score, _DIGITS)}
        for number, seconds, score in prediction.frames
    ]
    looked = Finding(
        "frames", DERIVED, "Frames that were looked at",
        f"{len(frames)} evenly spaced frames; {len(faceless)} of them without a face that was found.",
        ("What happens between these frames was not seen.", "Each frame was looked at alone, without its motion."),
        ("a short forged passage between two of the frames", *_OTHER_CAUSES), frames,
    )  # fmt: skip
    sound = Finding(
        "sound", NOT_AVAILABLE, "Sound", "The sound was not examined.", ("It may be forged where the frames are not.",)
    )
    if prediction.verdict == NO_FACE:
        return [looked, sound, _no_score("No face was found in any frame, and the model looks at faces only.")]
    score = _score(prediction.score, "clip", rule=f" It is the {prediction.video_score} of the frames' scores.")
    # A calibration is of images: it says nothing of a mean over frames.
    return [looked, sound, score, *decision(prediction.verdict, prediction.threshold, "clip")]


def decision(verdict: str, threshold: float, subject: str, *, reason: str = "") -> list[Finding]:
    """On which side of a plain threshold a score is, and that its weight is not known.

    Args:
        verdict: "fake" or "real", or "inconclusive" where a delivery flips it.
        threshold: of the score.
        subject: "image" or "clip".
        reason: why it is inconclusive.
    """
    why = f": {reason}" if verdict == INCONCLUSIVE else ""
    said = f"{headline(verdict)}{why}. {meaning(verdict, subject)}"
    limits = (
        f"The threshold {threshold:g} is a setting; at another one the same {subject} may fall on the other side.",
        "How often authentic and forged ones fall on this side depends on where they come from.",
    )
    value = {"verdict": verdict, "threshold": threshold}
    return [
        Finding("verdict", DERIVED, "Side of the threshold", said, limits, (*_OTHER_CAUSES, *_HIDDEN), value),
        Finding("likelihood_ratio", NOT_AVAILABLE, "Likelihood ratio", UNCALIBRATED, ("No weight can be stated.",)),
    ]


def weighed(summary: PredictionSummary, calibration: Calibration) -> Finding:
    """The verdict of a calibration on an image, with its likelihood ratio."""
    value = {
        "verdict": summary.verdict,
        "log10_lr": None if summary.log10_lr is None else round(summary.log10_lr, _DIGITS),
        "calibration": calibration.fingerprint,
        "corpus": calibration.corpus,
    }
    said = f"{headline(summary.verdict)}: {summary.reason}. {meaning(summary.verdict, 'image')}"
    limits = (
        f"It holds for images like those of {calibration.about_corpus}; how like them this one is, is not known.",
        "The odds of forgery before the examination are not the model's to judge.",
    )
    return Finding("verdict", INFERRED, "Weight of the score", said, limits, (*_OTHER_CAUSES, *_HIDDEN), value)


def fragility_finding(fragility: Fragility | None) -> Finding:
    """How the verdict fares when the image is delivered in other ways."""
    title = "Fragility of the verdict"
    if fragility is None:
        limits = ("A verdict that a recompression would flip looks the same as one that holds.",)
        return Finding("fragility", NOT_AVAILABLE, title, "It was not asked for.", limits)
    deliveries = [
        {
            "delivery": one.delivery,
            "score": None if one.score is None else round(one.score, _DIGITS),
            "verdict": one.verdict,
            "map_iou": round(one.map_iou, 4),
        }
        for one in fragility.delivered
    ]
    return Finding(
        "fragility", DERIVED, title, f"The verdict: {fragility.reason}.",
        ("It was tried on these deliveries only, not on attacks.", "A verdict that holds may be wrong all the same."),
        ("traces of a forgery that a delivery covers", "a score near the threshold"),
        {"holds": fragility.holds, "deliveries": deliveries},
    )  # fmt: skip


def verdict_of(findings: list[Mapping[str, Any]]) -> str:
    """The verdict among the findings of a record: of a calibration, of a threshold, or that there was no face."""
    found = {finding["name"]: finding for finding in findings}
    return found["verdict"]["value"]["verdict"] if "verdict" in found else NO_FACE


def _score(score: float, subject: str, *, rule: str = "") -> Finding:
    return Finding(
        "score", DERIVED, "Score of the model",
        f"{score:.3f} on a scale from 0 to 1 that rises with signs of forgery.{rule}",
        ("It is no probability and no share of forged pixels.", f"Another model may score the {subject} otherwise."),
        (*_OTHER_CAUSES, *_HIDDEN), round(score, _DIGITS),
    )  # fmt: skip


def _no_score(why: str) -> Finding:
    return Finding("score", NOT_AVAILABLE, "Score of the model", why, ("Nothing is said of the pixels.",))


def _map(prediction: Prediction) -> Finding:
    summary = prediction.summary
    pixels = quantize_map(prediction.forgery_map)
    forged = says_forged(summary.verdict)
    value = {
        "map_sha256": hashlib.sha256(pixels.tobytes()).hexdigest(),
        "map_threshold": summary.map_threshold,
        "forged_share": round(summary.forged_share, _DIGITS),
        "regions": [
            {"box": list(region.box), "area": region.area, "mean": region.mean_probability}
            for region in summary.regions
        ],
    }
    said = (
        f"{len(summary.regions)} regions ({summary.forged_share:.1%} of pixels) are above {summary.map_threshold:g}."
        if forged
        else "Not read: the verdict is not that of a forgery, and the map answers where, not whether."
    )
    return Finding(
        "forgery_map", DERIVED, "Forgery map", said,
        ("It answers where, if the image is forged; it lights up on authentic images, too.", "Its borders are coarse."),
        _OTHER_CAUSES, value,
    )  # fmt: skip


def _faces(prediction: Prediction) -> list[Finding]:
    """A score for each face, by a model that looks at faces one by one."""
    faces = prediction.to_dict().get("faces")
    if faces is None:
        return []
    listed = [{"box": face["box"], "score": round(face["score"], _DIGITS)} for face in faces]
    scores = ", ".join(f"{face['score']:.3f}" for face in listed)
    said = f"Faces found: {len(listed)}. Their scores: {scores or 'none'}."
    return [
        Finding(
            "faces", DERIVED, "Faces", said,
            (
                "Profiles, small and covered faces are often not found.",
                "The more faces, the likelier that one of them scores high by chance.",
                "Who they are was not examined.",
            ),
            (*_OTHER_CAUSES, "something that is no face but was taken for one"), listed,
        )
    ]  # fmt: skip
