"""Uploads: read within limits into memory, and told apart by their content."""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect, Request

from ddl_d2.io.file_kinds import image_format, is_read, kind_of_head
from ddl_d2.io.file_metadata import stored_size
from ddl_d2.serve.limits import Limits, RefusedRequestError
from ddl_d2.utils.text import printable

_LONGEST_NAME = 120
_HEAD = 4096


async def read_upload(request: Request, limits: Limits) -> bytes:
    """Read the body of a request.

    Raises:
        RefusedRequestError: 413 where it is too large, 408 where it takes too long, 415 for a form, 422 where it is
            empty, 400 where the connection ends.
    """
    if request.headers.get("content-type", "").startswith("multipart/"):
        raise RefusedRequestError(415, "send the file itself, not a form: curl --data-binary @photo.jpg")
    stated = request.headers.get("content-length", "0")
    too_large = RefusedRequestError(413, f"the file is larger than {limits.max_bytes // 2**20} MiB")
    if not stated.isdecimal() or int(stated) > limits.max_bytes:
        raise too_large
    content = bytearray()
    try:
        async with asyncio.timeout(limits.upload_seconds):
            async for part in request.stream():
                content += part
                if len(content) > limits.max_bytes:
                    raise too_large
    except TimeoutError as error:
        raise RefusedRequestError(408, f"the upload took longer than {limits.upload_seconds:g} s") from error
    except ClientDisconnect as error:
        raise RefusedRequestError(400, "the connection ended before the file did") from error
    if not content:
        raise RefusedRequestError(422, "the file is empty")
    return bytes(content)


def kind_of_upload(content: bytes, limits: Limits) -> str:
    """Tell an upload: "image" or "video".

    Raises:
        RefusedRequestError: 415 for anything else, 413 for an image with too many pixels.
        ImageReadError: an image whose header cannot be read.
    """
    head = content[:_HEAD]
    kind, form = kind_of_head(head), image_format(head)
    if kind == "other":
        raise RefusedRequestError(415, "neither an image (JPEG, PNG, WebP, BMP, TIFF) nor a video")
    if kind == "video":
        return kind
    if not is_read(form):
        raise RefusedRequestError(415, f"a {form} image, which is not read: save it as JPEG or PNG")
    # Header only: nothing is decoded before its size is known.
    width, height = stored_size(content)
    if width * height > limits.max_pixels:
        size = f"{width} x {height} pixels"
        raise RefusedRequestError(413, f"the image has {size}, more than the limit of {limits.max_pixels}")
    return kind


def clean_name(name: str) -> str:
    """The last part of a file's name as it was sent, on one line and not too long."""
    last = name.replace("\\", "/").rpartition("/")[2]
    return printable(last)[:_LONGEST_NAME] or "upload"
