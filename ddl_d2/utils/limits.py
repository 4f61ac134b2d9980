"""Limits that several rooms share."""

MAX_PIXELS = 64_000_000
"""The most pixels (height x width) that an image or frame from outside may have, unless a caller says otherwise."""
