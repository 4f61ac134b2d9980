"""The one error type of this folder."""


class FusionError(ValueError):
    """Predictions that cannot be fused as asked: unlike pictures, contradicting labels, impossible weights or sizes."""
