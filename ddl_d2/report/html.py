"""Building blocks of HTML pages that work from disk: one file, no request to anywhere.

Text that is handed in is escaped here; arguments called `html` are taken as they are.
"""

from __future__ import annotations

import base64
import html as _html
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

STYLE = Path(__file__).with_name("style.css")
"""The style sheet of all pages: color-blind-safe, WCAG AA, from the width of a phone on, and for print."""


def escape(text: object) -> str:
    """Text for between tags and within attributes."""
    return _html.escape(str(text), quote=True)


def page(title: str, html: str, *, script: str = "") -> str:
    """A whole page, with its style and script in it.

    Args:
        title: of the window.
        html: what stands in <main>.
        script: JavaScript of the project's own.
    """
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f"<title>{escape(title)}</title>\n<style>\n{STYLE.read_text(encoding='utf-8')}</style>\n</head>\n"
        f"<body>\n<main>\n{html}\n</main>\n"
        + (f"<script>\n{script}</script>\n" if script else "")
        + "</body>\n</html>\n"
    )


def section(heading: str, *html: str, name: str = "") -> str:
    """A part of a page under a heading; `name` is its anchor."""
    anchor = f' id="{escape(name)}"' if name else ""
    return f"<section{anchor}>\n<h2>{escape(heading)}</h2>\n" + "\n".join(html) + "\n</section>"


def paragraph(text: object, *, kind: str = "") -> str:
    """A paragraph; `kind` is its class in the style sheet."""
    return f"<p{_class(kind)}>{escape(text)}</p>"


def bullets(texts: Iterable[object]) -> str:
    """A list, "" for an empty one."""
    items = "".join(f"<li>{escape(text)}</li>" for text in texts)
    return f"<ul>{items}</ul>" if items else ""


def facts(pairs: Iterable[tuple[str, object]]) -> str:
    """Names and values, as a description list; long values such as a sha256 break where they must."""
    rows = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in pairs)
    return f'<dl class="facts">{rows}</dl>'


def table(head: Sequence[str], rows: Iterable[Sequence[object]], *, caption: str) -> str:
    """A table with a caption; on a narrow page it scrolls by itself."""
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(caption)}"><table>'
        f"<caption>{escape(caption)}</caption><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def data_uri(array: np.ndarray, *, quality: int = 0) -> str:
    """An image as the value of `src`.

    Args:
        array: uint8 H×W, H×W×3 RGB or H×W×4 RGBA.
        quality: of a JPEG; 0 for a PNG.
    """
    content = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(array))
    if quality:
        image.save(content, "JPEG", quality=quality)
    else:
        image.save(content, "PNG")
    kind = "jpeg" if quality else "png"
    return f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode()}"


def png_figure(content: bytes, *, description: str) -> str:
    """The content of a PNG file as a figure, with a description for those who cannot see it."""
    uri = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    return f'<figure class="drawn"><img src="{uri}" alt="{escape(description)}"></figure>'


def overlay(image: str, layer: str, *, description: str, opacity: int = 60) -> str:
    """An image with a layer over it whose opacity a slider sets; the script is `OVERLAY_SCRIPT`.

    Args:
        image: data URI of the image.
        layer: data URI of a layer of the same shape; "" for none, and then no slider.
        description: of the image, for those who cannot see it.
        opacity: at first, percent.
    """
    over = f'<img class="layer" src="{layer}" alt="" style="opacity:{opacity / 100:g}">' if layer else ""
    slider = (
        f'<label class="slider">Map opacity <input type="range" min="0" max="100" value="{opacity}" '
        'data-opacity aria-label="Opacity of the forgery map, percent"></label>'
    )
    picture = f'<div class="stack"><img src="{image}" alt="{escape(description)}">{over}</div>'
    return f'<figure class="overlay">{picture}{slider if layer else ""}</figure>'


OVERLAY_SCRIPT = """document.querySelectorAll("[data-opacity]").forEach((slider) => {
  const layer = slider.closest(".overlay").querySelector(".layer");
  slider.addEventListener("input", () => { layer.style.opacity = slider.value / 100; });
});
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => { part.open = true; }));
"""
"""What moves the layer of each `overlay`, and opens what is folded before a page is printed."""


def _class(kind: str) -> str:
    return f' class="{escape(kind)}"' if kind else ""
