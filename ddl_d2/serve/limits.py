"""What the service takes at most, and what it answers where something is more."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """The limits of the service.

    Attributes:
        max_bytes: of an upload.
        max_pixels: of an image, width x height.
        upload_seconds: that an upload may take.
        seconds: that an answer may take, waiting included.
        waiting: examinations that may wait while another is under way.
        connections: open at once.
    """

    max_bytes: int = 32 * 2**20
    max_pixels: int = 40_000_000
    upload_seconds: float = 60.0
    seconds: float = 120.0
    waiting: int = 4
    connections: int = 64


class RefusedRequestError(Exception):
    """A request that is answered with an error: its status, and why in a sentence for whoever sent it."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason
