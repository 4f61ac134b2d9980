"""Files made to break an image reader: 33 classes, and mutants of 12 sound seeds. Used by tests and trials."""

from __future__ import annotations

import io
import os
import socket
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

REFUSED, ACCEPTED, EITHER = "refused", "accepted", "either"
Maker = Callable[[np.random.Generator, Path], None]


def encoded(
    rng: np.random.Generator, fmt: str, mode: str = "RGB", size: tuple[int, int] = (61, 43), **options
) -> bytes:
    """A sound file: smooth colors and some noise, `size` = (width, height)."""
    width, height = size
    ramp = np.add.outer(np.arange(height), np.arange(width)) * 3
    rgb = (ramp[:, :, None] + rng.integers(0, 60, (height, width, 3))).astype(np.uint8)
    image = Image.fromarray(rgb)
    image = image.convert("RGB").quantize(16) if mode == "P" else image.convert(mode)
    out = io.BytesIO()
    image.save(out, fmt, **options)
    return out.getvalue()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    width: int, height: int, depth: int = 8, color: int = 2, data: bytes | None = None, extra: bytes = b""
) -> bytes:
    """A PNG put together by hand, so that its header may lie."""
    body = zlib.compress(bytes(200)) if data is None else data
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + extra + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")
    )


def tiff(tags: list[tuple[int, int, int, int]], tail: bytes = b"", following: int = 0) -> bytes:
    """A little-endian TIFF with one directory of (tag, type, count, value)."""
    entries = b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", following) + tail


def plain_tiff(width: int, height: int, offset: int = 8, count: int = 1, following: int = 0) -> bytes:
    tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
    tags += [(273, 4, count, offset), (277, 3, 1, 1), (278, 4, 1, height), (279, 4, count, width * height % 2**32)]
    return tiff(tags, bytes(64), following)


def _bytes(make: Callable[[np.random.Generator], bytes]) -> Maker:
    return lambda rng, path: Path(path).write_bytes(make(rng)) and None


def _cut(fmt: str) -> Maker:
    def make(rng: np.random.Generator) -> bytes:
        whole = encoded(rng, fmt)
        return whole[: int(len(whole) * rng.uniform(0.2, 0.9))]

    return _bytes(make)


def _patched(fmt: str, edit: Callable[[np.random.Generator, bytearray], None], **options) -> Maker:
    def make(rng: np.random.Generator) -> bytes:
        data = bytearray(encoded(rng, fmt, **options))
        edit(rng, data)
        return bytes(data)

    return _bytes(make)


def _jpeg_size(rng: np.random.Generator, data: bytearray) -> None:
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", int(rng.integers(40000, 65500)), 65500)


def _bmp_size(rng: np.random.Generator, data: bytearray) -> None:
    data[18:26] = struct.pack("<ii", int(rng.integers(2**20, 2**30)), int(rng.choice([2**30, -(2**31), 2**24])))


def _webp_size(rng: np.random.Generator, data: bytearray) -> None:
    data[26:30] = struct.pack("<HH", 16383, 16383) if data[12:16] == b"VP8 " else bytes(4)


def _png_idat(rng: np.random.Generator, data: bytearray) -> None:
    start = data.index(b"IDAT") + 4
    for spot in rng.integers(start + 2, len(data) - 20, 30):
        data[spot] = rng.integers(256)


def _garbled_exif(rng: np.random.Generator) -> bytes:
    exif = b"Exif\0\0" + b"II*\0" + rng.bytes(int(rng.integers(8, 300)))
    return encoded(rng, "JPEG", exif=exif)


def _exif_turn(rng: np.random.Generator) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = int(rng.integers(0, 4000))
    return encoded(rng, "JPEG", exif=exif)


def _text_bomb(rng: np.random.Generator) -> bytes:
    return png(4, 4, extra=png_chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(200_000_000), 1)))


def _profile_bomb(rng: np.random.Generator) -> bytes:
    return png(4, 4, extra=png_chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(200_000_000), 1)))


def _animated(fmt: str) -> Maker:
    def make(rng: np.random.Generator) -> bytes:
        frames = [Image.new("RGB", (20, 12), tuple(int(x) for x in rng.integers(0, 256, 3))) for _ in range(30)]
        out = io.BytesIO()
        frames[0].save(out, fmt, save_all=True, append_images=frames[1:])
        return out.getvalue()

    return _bytes(make)


def _float_tiff(rng: np.random.Generator) -> bytes:
    out = io.BytesIO()
    values = rng.normal(size=(9, 7)).astype(np.float32)
    values[0, 0] = rng.choice([np.nan, np.inf, -1e30])
    Image.fromarray(values).save(out, "TIFF")
    return out.getvalue()


def _sixteen(rng: np.random.Generator) -> bytes:
    out = io.BytesIO()
    Image.fromarray(rng.integers(0, 65536, (9, 7), dtype=np.uint16)).save(out, str(rng.choice(["PNG", "TIFF"])))
    return out.getvalue()


def _folder(rng: np.random.Generator, path: Path) -> None:
    path.mkdir()


def _pipe(rng: np.random.Generator, path: Path) -> None:
    os.mkfifo(path)


def _socket(rng: np.random.Generator, path: Path) -> None:
    # A socket's path is short on every system: bind in the folder, by name.
    before = os.getcwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(before)


def _loop(rng: np.random.Generator, path: Path) -> None:
    path.symlink_to(path.name)


CLASSES: dict[str, tuple[Maker, str]] = {
    "empty": (_bytes(lambda rng: b""), REFUSED),
    "random bytes": (_bytes(lambda rng: rng.bytes(int(rng.integers(1, 5000)))), REFUSED),
    "text": (_bytes(lambda rng: b"not an image\n" * int(rng.integers(1, 99))), REFUSED),
    "gif": (_bytes(lambda rng: encoded(rng, "GIF", "P")), REFUSED),
    "postscript": (
        _bytes(lambda rng: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n" + rng.bytes(9)),
        REFUSED,
    ),
    "svg": (_bytes(lambda rng: b'<svg xmlns="http://www.w3.org/2000/svg"/>' + rng.bytes(5)), REFUSED),
    "icon": (_bytes(lambda rng: encoded(rng, "ICO", size=(32, 32))), REFUSED),
    "cut jpeg": (_cut("JPEG"), REFUSED),
    "cut png": (_cut("PNG"), REFUSED),
    "cut webp": (_cut("WEBP"), REFUSED),
    "cut tiff": (_cut("TIFF"), REFUSED),
    "cut bmp": (_cut("BMP"), REFUSED),
    "jpeg header only": (_bytes(lambda rng: encoded(rng, "JPEG")[: int(rng.integers(2, 160))]), REFUSED),
    "png claims gigapixels": (_bytes(lambda rng: png(2**31 - 1, int(rng.integers(9000, 2**31)))), REFUSED),
    "png just above the cap": (_bytes(lambda rng: png(8001, 8000 + int(rng.integers(9)))), REFUSED),
    "png without data": (_bytes(lambda rng: png(7999, int(rng.integers(4000, 7999)))), REFUSED),
    "png of no size": (_bytes(lambda rng: png(0, int(rng.integers(0, 9)))), REFUSED),
    "png bad depth": (_bytes(lambda rng: png(9, 9, depth=int(rng.choice([0, 3, 5, 17, 255])))), REFUSED),
    "jpeg claims gigapixels": (_patched("JPEG", _jpeg_size), REFUSED),
    "bmp lies": (_patched("BMP", _bmp_size), REFUSED),
    "webp lies": (_patched("WEBP", _webp_size), REFUSED),
    "tiff lies": (_bytes(lambda rng: plain_tiff(2**31, int(rng.integers(1, 2**32)))), REFUSED),
    "tiff reads past the end": (_bytes(lambda rng: plain_tiff(50, 50, offset=int(rng.integers(500, 2**32)))), REFUSED),
    "tiff loop": (_bytes(lambda rng: plain_tiff(8, 8, following=8)), EITHER),
    "tiff huge counts": (_bytes(lambda rng: plain_tiff(9, 9, count=int(rng.integers(2**28, 2**32)))), REFUSED),
    "png damaged data": (_patched("PNG", _png_idat), EITHER),
    "png text bomb": (_bytes(_text_bomb), EITHER),
    "png profile bomb": (_bytes(_profile_bomb), EITHER),
    "garbled exif": (_bytes(_garbled_exif), ACCEPTED),
    "strange exif turn": (_bytes(_exif_turn), ACCEPTED),
    "float tiff": (_bytes(_float_tiff), REFUSED),
    "folder": (_folder, REFUSED),
    "pipe, socket or link loop": (lambda rng, path: [_pipe, _socket, _loop][int(rng.integers(3))](rng, path), REFUSED),
}

SEEDS: dict[str, Callable[[np.random.Generator], bytes]] = {
    "jpeg": lambda rng: encoded(rng, "JPEG"),
    "progressive jpeg": lambda rng: encoded(rng, "JPEG", progressive=True, optimize=True),
    "gray jpeg": lambda rng: encoded(rng, "JPEG", "L"),
    "cmyk jpeg": lambda rng: encoded(rng, "JPEG", "CMYK"),
    "png": lambda rng: encoded(rng, "PNG"),
    "palette png": lambda rng: encoded(rng, "PNG", "P"),
    "alpha png": lambda rng: encoded(rng, "PNG", "RGBA"),
    "16-bit": _sixteen,
    "webp": lambda rng: encoded(rng, "WEBP"),
    "lossless webp": lambda rng: encoded(rng, "WEBP", lossless=True),
    "bmp": lambda rng: encoded(rng, "BMP"),
    "lzw tiff": lambda rng: encoded(rng, "TIFF", compression="tiff_lzw"),
}

ANIMATED = {"PNG": _animated("PNG"), "WEBP": _animated("WEBP")}


def mutant(rng: np.random.Generator) -> bytes:
    """A sound file with a few bytes changed, cut out, repeated, or set to extremes."""
    data = bytearray(SEEDS[str(rng.choice(list(SEEDS)))](rng))
    for _ in range(int(rng.integers(1, 6))):
        # Half of the damage goes where the headers are.
        spot = int(rng.integers(len(data) if rng.integers(2) else min(len(data), 120)))
        kind = int(rng.integers(5))
        if kind == 0:
            data[spot] = int(rng.integers(256))
        elif kind == 1:
            data[spot : spot + 4] = struct.pack("<I", int(rng.choice([0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000])))
        elif kind == 2:
            del data[spot : spot + int(rng.integers(1, 40))]
        elif kind == 3:
            data[spot:spot] = data[spot : spot + int(rng.integers(1, 400))]
        else:
            data[spot] ^= 1 << int(rng.integers(8))
        if len(data) < 2:
            break
    return bytes(data)
