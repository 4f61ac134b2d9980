"""Galleries of a report: images with their forgery maps, what was said of them, filters and keys.

Everything can be read without a script; with one, a slider lays the map over its image, and images can be filtered.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from ddl_d2.report.html import OVERLAY_SCRIPT, bullets, data_uri, escape, facts, paragraph, section
from ddl_d2.report.map_layer import map_layer
from ddl_d2.report.words import headline, meaning, tone

LONGEST = 360
"""Of an image of a gallery, pixels of its longer side."""

MAP = "Forgery map"
"""What a view is called that is a forgery map of the image's shape."""

_QUALITY = 80
_TRUTHS = {1: "fake", 0: "real", None: "unknown"}

GALLERY_SCRIPT = Path(__file__).with_name("gallery.js").read_text(encoding="utf-8") + OVERLAY_SCRIPT
"""What filters, sliders and keys of galleries need."""


class View(NamedTuple):
    """One of the pictures of a `Card`: what it is called, what it shows in words, and its data URI."""

    name: str
    description: str
    uri: str


class Card(NamedTuple):
    """An image of a gallery.

    Attributes:
        name: of the image.
        verdict: what was said of it, see `predictions.verdict`.
        truth: 0 real, 1 fake, None unknown.
        forgery_type: how a fake was forged, "" if that is not known.
        views: the image, then what is shown beside it; a slider lays one that is called `MAP` over it.
        known: names and values.
        said: sentences, folded at first.
    """

    name: str
    verdict: str
    truth: int | None
    forgery_type: str
    views: Sequence[View]
    known: Sequence[tuple[str, object]]
    said: Sequence[str]


class Gallery(NamedTuple):
    """Images of a report that have something in common.

    Attributes:
        name: what that is.
        note: a sentence about it.
        cards: the images.
        wide: whether each takes the whole width, for views that hold several pictures.
    """

    name: str
    note: str
    cards: Sequence[Card]
    wide: bool = False


def small(image: np.ndarray, longest: int = LONGEST) -> np.ndarray:
    """An image or map (H×W, H×W×3) whose longer side is `longest` pixels at most."""
    height, width = image.shape[:2]
    factor = longest / max(height, width)
    if factor >= 1:
        return image
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA))


def image_uri(image: np.ndarray, longest: int = LONGEST) -> str:
    """An image (uint8 H×W×3) as a small JPEG."""
    return data_uri(small(image, longest), quality=_QUALITY)


def map_uri(forgery_map: np.ndarray, map_threshold: float) -> str:
    """A forgery map (float32 H×W in [0, 1]) as a small JPEG, with a line around what is above the threshold."""
    return data_uri(map_layer(small(forgery_map), map_threshold)[..., :3], quality=_QUALITY)


def mask_uri(mask: np.ndarray) -> str:
    """A forgery mask (bool H×W) as a small PNG: forged is white."""
    return data_uri(small(np.where(mask, 255, 0).astype(np.uint8)) > 127)


def galleries_section(heading: str, galleries: Sequence[Gallery], *, name: str) -> str:
    """A part of a page with galleries; those without images are named all the same."""
    return section(heading, *map(_gallery, galleries), name=name)


def toolbar(galleries: Iterable[Gallery]) -> str:
    """Filters for all images of a page; hidden where no script runs."""
    cards = [card for gallery in galleries for card in gallery.cards]
    choices = {
        "truth": ("Truth", [(value, value) for value in dict.fromkeys(_TRUTHS[card.truth] for card in cards)]),
        "verdict": ("Verdict", [(value, headline(value)) for value in dict.fromkeys(card.verdict for card in cards)]),
        "type": ("Forgery type", [(value, value) for value in sorted({card.forgery_type for card in cards} - {""})]),
    }
    parts = [_choice(key, label, values) for key, (label, values) in choices.items() if len(values) > 1]
    parts.append('<label>Name <input type="search" id="find" placeholder="press / to search"></label>')
    return (
        f'<form class="toolbar needs-script" role="search" aria-label="Filter the images" hidden>{"".join(parts)}'
        f'<span id="count" role="status">{len(cards)} images</span>'
        '<p class="faint">Arrow keys left and right go from image to image, / to the search, Escape clears it.</p>'
        "</form>"
    )


def _choice(key: str, label: str, values: Sequence[tuple[str, str]]) -> str:
    options = "".join(f'<option value="{escape(value)}">{escape(text)}</option>' for value, text in values)
    return f'<label>{label} <select data-filter="{key}"><option value="">all</option>{options}</select></label>'


def _gallery(gallery: Gallery) -> str:
    cards = "\n".join(map(_card, gallery.cards)) or paragraph("None.")
    return (
        f'<div class="gallery"><h3>{escape(gallery.name)}</h3>{paragraph(gallery.note, kind="faint")}'
        f'<div class="cards{" wide-cards" if gallery.wide else ""}">{cards}</div>'
        '<p class="none" hidden>None of these passes the filter.</p></div>'
    )


def _card(card: Card) -> str:
    truth = _TRUTHS[card.truth]
    label = ""
    if card.truth is not None:
        known = f"truth: {truth}" + (f", {card.forgery_type}" if card.forgery_type else "")
        label = f'<span class="kind">{escape(known)}</span>'
    views = "".join(_view(view, first=number == 0) for number, view in enumerate(card.views))
    slider = ""
    if any(view.name == MAP for view in card.views):
        slider = (
            '<label class="slider needs-script" hidden>Map over image <input type="range" min="0" max="100" value="0" '
            f'data-opacity aria-label="Opacity of the forgery map over {escape(card.name)}, percent"></label>'
        )
    said = bullets([*card.said, meaning(card.verdict)])
    data = {"truth": truth, "verdict": card.verdict, "type": card.forgery_type, "name": card.name.lower()}
    attributes = "".join(f' data-{key}="{escape(value)}"' for key, value in data.items())
    return (
        f'<article class="card overlay" tabindex="0" aria-label="{escape(card.name)}"{attributes}>'
        f"<h4>{escape(card.name)}</h4>"
        f'<p><span class="said {tone(card.verdict)}">{escape(headline(card.verdict))}</span>'
        f'{label}</p><div class="views">{views}</div>{slider}{facts(card.known)}'
        f"<details><summary>What is said, and what is not</summary>{said}</details></article>"
    )


def _view(view: View, *, first: bool) -> str:
    """A picture with its name; the script stacks the map onto the first."""
    role = ' class="map"' if view.name == MAP else ""
    image = f'<img{role} decoding="async" src="{view.uri}" alt="{escape(view.description)}">'
    caption = f"<figcaption>{escape(view.name)}</figcaption>"
    if first:
        return f'<figure class="first"><div class="stack">{image}</div>{caption}</figure>'
    return f"<figure>{image}{caption}</figure>"
