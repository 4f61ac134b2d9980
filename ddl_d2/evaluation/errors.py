"""The one error type of this folder for data that cannot be evaluated honestly."""


class EvaluationError(ValueError):
    """What was predicted and what was asked for do not fit: missing images, contradictions, impossible values."""


def listed(ids: list[str], limit: int = 5) -> str:
    """The first `limit` ids of a list, for an error message that stays one line."""
    return ", ".join(ids[:limit]) + (f" and {len(ids) - limit} more" if len(ids) > limit else "")
