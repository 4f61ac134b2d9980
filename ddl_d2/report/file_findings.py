"""What a file says of itself and what its processing left in it, as findings; the model has no part in them."""

from __future__ import annotations

from collections.abc import Sequence

from ddl_d2.errors import ImageReadError
from ddl_d2.io.file_metadata import FileMetadata, jpeg_quality, read_file_metadata
from ddl_d2.io.image import decode_luma
from ddl_d2.report.credential_words import credentials_finding
from ddl_d2.report.credentials import AI_SOURCES
from ddl_d2.report.findings import DERIVED, INFERRED, NOT_AVAILABLE, OBSERVED, Finding
from ddl_d2.report.traces import Enlargement, earlier_qualities, enlargement, is_large_enough

_MIME = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "TIFF": "image/tiff"}
_UNSIGNED = "It is not signed: whoever can write the file can write, change or take out any of it."
_INNOCENT = ("a messenger, a web site or a photo library that saves what it is given anew", "an innocent edit")
_NAMES = {"ExifImageWidth": "width by the camera", "ExifImageHeight": "height by the camera", "GPS": "place"}


def image_file_findings(content: bytes, name: str, *, max_pixels: int, anchors: str = "") -> list[Finding]:
    """The findings on an image file.

    Args:
        content: the file.
        name: stands for its path in errors.
        max_pixels: the most pixels it may have.
        anchors: certificates (PEM) that are trusted to vouch for signers.

    Raises:
        ImageReadError: it cannot be read as an image.
    """
    data = read_file_metadata(content, name=name, max_pixels=max_pixels)
    signed = (
        credentials_finding(content, _MIME[data.format], anchors=anchors)
        if data.format in _MIME
        else _no_credentials(f"A {data.format} file holds none.")
    )
    quality = jpeg_quality(data.jpeg.tables[0]) if data.jpeg is not None else None
    found = [signed, _format(data), _metadata(data)]
    found += [_quality(*quality)] if quality is not None else []
    found += _traces(content, name, data, quality[0] if quality else None, max_pixels)
    return found


def clip_file_findings(content: bytes, *, anchors: str = "") -> list[Finding]:
    """The findings on a video file: its content credentials."""
    if content[4:8] == b"ftyp":
        return [credentials_finding(content, "video/mp4", anchors=anchors)]
    if content[:4] == b"RIFF":
        return [credentials_finding(content, "video/avi", anchors=anchors)]
    return [_no_credentials("A file of this kind holds none.")]


def resaved(data: FileMetadata, quality: tuple[int, bool] | None, earlier: Sequence[tuple[int, float]]) -> str:
    """What probably happened to a file before, in a sentence; "" if nothing says so.

    Args:
        data: what the file says of itself.
        quality: of its JPEG tables, and whether they are libjpeg's exactly; None for no JPEG.
        earlier: qualities of earlier saves.
    """
    width, height = data.exif.get("ExifImageWidth"), data.exif.get("ExifImageHeight")
    shrunk = ""
    if isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0:
        before, now = sorted((width, height)), sorted((data.width, data.height))
        if now[1] < before[1] and now[0] < before[0]:
            same_shape = abs(before[1] / before[0] - now[1] / now[0]) < 0.02
            shrunk = f" after {'shrinking' if same_shape else 'cropping or shrinking'} from {width} × {height} pixels"
    first = f" It was a JPEG of quality about {earlier[0][0]} before." if earlier else ""
    of_camera = "Make" in data.exif or "Model" in data.exif
    if quality is not None and (shrunk or earlier or (of_camera and quality[1])):
        return f"This file was re-saved at JPEG quality about {quality[0]}{shrunk}.{first}"
    return f"This file was re-saved{shrunk}.{first}" if shrunk or earlier else ""


def _no_credentials(why: str) -> Finding:
    title, limits = "Content credentials (C2PA)", ("They may exist elsewhere.",)
    return Finding("content_credentials", NOT_AVAILABLE, title, why, limits)


def _format(data: FileMetadata) -> Finding:
    said = f"{data.format}, {data.width} × {data.height} pixels as stored."
    if data.jpeg is not None:
        coding = "progressive" if data.jpeg.progressive else "baseline"
        said += f" Coding: {coding}, colors {data.jpeg.subsampling or 'not subsampled in a usual way'}."
    limits = ("It describes this file; the recording may have been another.",)
    value = {"format": data.format, "width": data.width, "height": data.height}
    return Finding("file_format", OBSERVED, "Format of the file", said, limits, value=value)


def _metadata(data: FileMetadata) -> Finding:
    listed = [f"{_NAMES.get(key, key)}: {value}" for key, value in (*data.exif.items(), *data.texts.items())]
    if data.unreadable:
        said = "The camera data is damaged."
    elif listed:
        said = "; ".join(listed) + "."
    else:
        said = "None. This points in no direction: most files from messengers and web sites have none."
    declared = AI_SOURCES & set(data.declared_sources)
    if declared:
        said += f" It declares that a trained model made the image or a part of it ({', '.join(sorted(declared))})."
    value = {"exif": dict(data.exif), "texts": dict(data.texts), "declared_sources": list(data.declared_sources)}
    return Finding(
        "metadata", OBSERVED, "What the file says of itself (EXIF, XMP, texts)", said, (_UNSIGNED,), value=value
    )


def _quality(quality: int, exact: bool) -> Finding:
    said = (
        f"Its quantization tables are those of libjpeg at quality {quality}, as most programs and messengers have them."
        if exact
        else f"Its quantization tables are not of libjpeg; the nearest of libjpeg's is quality {quality}."
    )
    return Finding(
        "jpeg_quality", DERIVED, "Quality of the JPEG file", said,
        ("It is of the last save only.", "Cameras, editors and messengers have tables of their own."),
        ("a camera that has libjpeg's tables", "any program that saves files"), {"quality": quality, "libjpeg": exact},
    )  # fmt: skip


def _traces(content: bytes, name: str, data: FileMetadata, quality: int | None, max_pixels: int) -> list[Finding]:
    try:
        luma = decode_luma(content, name=name, max_pixels=max_pixels)
    except ImageReadError as error:
        return [_no_traces(f"Not looked for: {error.reason}.")]
    if not is_large_enough(luma):
        return [_no_traces("Not looked for: the image is smaller than 64 pixels.")]
    earlier, enlarged = earlier_qualities(luma, saved_at=quality), enlargement(luma)
    exact = None if data.jpeg is None else jpeg_quality(data.jpeg.tables[0])
    history = resaved(data, exact, earlier)
    found = [_earlier(earlier), _enlarged(enlarged)]
    if history:
        limits = (
            "It concludes from tables, traces and unsigned data; each can be imitated.",
            "It says nothing of forgery.",
        )
        causes = (*_INNOCENT, "a camera or phone that writes so itself", "covering the traces of a forgery")
        found.append(Finding("history", INFERRED, "Signs of re-saving", history, limits, causes))
    return found


def _no_traces(why: str) -> Finding:
    return Finding("traces", NOT_AVAILABLE, "Traces of re-saving", why, ("Nothing is known of earlier saves.",))


def _earlier(earlier: Sequence[tuple[int, float]]) -> Finding:
    listed = ", ".join(str(quality) for quality, _ in earlier)
    said = f"The pixels were saved as a JPEG before, at quality about {listed}." if earlier else "No trace was found."
    return Finding(
        "earlier_jpeg", DERIVED, "Trace of an earlier JPEG save", said,
        (
            "Only a save at a lower quality leaves it, and only if nothing was scaled or cropped off its blocks.",
            "No trace does not say that the file was saved once only.",
        ),
        (*_INNOCENT, "an image with blocks of 8 pixels of its own"),
        [{"quality": quality, "depth": round(depth, 3)} for quality, depth in earlier],
    )  # fmt: skip


def _enlarged(trace: Enlargement) -> Finding:
    said = (
        f"The pixels repeat with a period of {1 / trace.frequency:.2f} pixels, as enlarging leaves it."
        if trace.found
        else "No trace was found."
    )
    return Finding(
        "enlarged", DERIVED, "Trace of enlarging", said,
        ("Shrinking leaves next to none, and strong compression covers it.", "The factor cannot be told from it."),
        (*_INNOCENT, "a texture that repeats", "the digital zoom of a camera"),
        {"found": trace.found, "strength": round(trace.strength, 2), "frequency": round(trace.frequency, 4)},
    )  # fmt: skip
