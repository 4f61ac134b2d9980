"""The words for verdicts and propositions, the same on every page: each says only what the figures carry."""

from __future__ import annotations

from ddl_d2.predictions.verdict import AUTHENTIC, FAKE, FORGED, INCONCLUSIVE, NO_FACE, REAL

PROPOSITIONS = {
    "forged": "The {subject} was forged in the way that the model was trained to find.",
    "authentic": "The {subject} shows what was recorded, apart from ordinary processing (exposure, color, scaling, "
    "compression).",
}
"""The two propositions that are weighed against each other; `subject` is "image" or "clip"."""

UNCALIBRATED = (
    "Uncalibrated: no likelihood ratio is stated, as this model's scores were not compared with a corpus of known "
    "images. The score orders images; how much it weighs is not known."
)

_SAID = {
    FORGED: ("Signs of forgery found", "forged"),
    AUTHENTIC: ("No forgery found", "clear"),
    INCONCLUSIVE: ("Inconclusive", ""),
    FAKE: ("Score above the threshold: signs of forgery", "forged"),
    REAL: ("Score not above the threshold: no forgery found", "clear"),
    NO_FACE: ("No face found: the model says nothing", ""),
}
_MEANT = {
    "forged": "This is not a statement that the {subject} is forged: authentic ones score so, too, at a rate that the "
    "figures of the model tell.",
    "clear": "This does not say that the {subject} is authentic: forgeries of a kind that the model does not know, and "
    "many of the kind that it knows, go unnoticed.",
    "": "Neither proposition is supported.",
}


def headline(verdict: str) -> str:
    """A verdict in some words: of a calibration ("forged", ...) or of a plain threshold ("fake", "real")."""
    return _SAID[verdict][0]


def tone(verdict: str) -> str:
    """What the style sheet calls a verdict: "forged", "clear", or "" for neither."""
    return _SAID[verdict][1]


def meaning(verdict: str, subject: str = "image") -> str:
    """What a verdict does not mean, in a sentence."""
    return _MEANT[tone(verdict)].format(subject=subject)


def propositions(subject: str) -> dict[str, str]:
    """Both propositions on an "image" or a "clip"."""
    return {name: text.format(subject=subject) for name, text in PROPOSITIONS.items()}
