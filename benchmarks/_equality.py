"""Checks that two models compute the same, before either is timed."""

from __future__ import annotations

from pathlib import Path

import torch
from _processes import BenchmarkError, Process
from torch import Tensor

# Allowed differences, as shares of the range of the peer's values (see `differences`). In fp32 a query may differ more
# whose attention mask has a pixel so close to the threshold that rounding decides; the other queries, and the map, see
# a little of that. In bf16 it happens to all queries.
FLOAT32_LIMITS = {"most": 1e-4, "maximum": 1e-2}
FLOAT32_MAP_LIMITS = {"maximum": 1e-2}
BFLOAT16_LIMITS = {"mean": 0.1}
LOSS_TOLERANCE = 0.05
"""Share of the loss by which it may differ: the loss looks at random points."""


def check_equality(processes: list[Process], folder: Path) -> dict[str, dict]:
    """{our candidate: {output: differences from the first peer}}; BenchmarkError if they are too large."""
    peers = [p for p in processes if not p.candidate.ours]
    if not peers:
        return {}
    # An fp32 peer if there is one: its values are the more exact.
    peer = next((p for p in peers if p.candidate.dtype == "float32"), peers[0])
    peer.ask("predict", path=str(folder / "peer.pth"))
    theirs = torch.load(folder / "peer.pth", weights_only=True)
    found = {}
    for process in (p for p in processes if p.candidate.ours):
        process.ask("predict", path=str(folder / "ours.pth"))
        ours = torch.load(folder / "ours.pth", weights_only=True)
        found[str(process.candidate)] = {name: differences(ours[name], theirs[name]) for name in theirs}
        exact = {process.candidate.dtype, peer.candidate.dtype} == {"float32"}
        for name, difference in found[str(process.candidate)].items():
            limits = FLOAT32_MAP_LIMITS if name == "maps" else FLOAT32_LIMITS
            limits = limits if exact else BFLOAT16_LIMITS
            refuse_unequal(f"{name} of {process.candidate} and {peer.candidate}", difference, limits)
    return found


def differences(ours: Tensor, theirs: Tensor) -> dict[str, float]:
    """How far two outputs B×Q×... (or maps B×H×W) are apart, as a share of the range of `theirs`.

    `maximum` and `mean` of all values; `most`: below it are the largest differences of 95 % of the queries.
    """
    if ours.shape != theirs.shape:
        raise BenchmarkError(f"outputs of different shape: {tuple(ours.shape)} and {tuple(theirs.shape)}")
    spread = float(theirs.max() - theirs.min())
    distance = (ours - theirs).abs() / spread
    by_query = distance.flatten(2).amax(2).flatten()
    most = by_query.quantile(0.95, interpolation="higher")
    return {"maximum": float(distance.max()), "mean": float(distance.mean()), "most": float(most), "range": spread}


def refuse_unequal(what: str, difference: dict[str, float], limits: dict[str, float]) -> None:
    if not all(difference[name] <= limit for name, limit in limits.items()):  # NaN, too
        shown = ", ".join(
            f"{name} {value:.2g} (allowed {limits[name]})" for name, value in difference.items() if name in limits
        )
        raise BenchmarkError(f"not the same function: {what} differ, as shares of the range: {shown}")


def check_losses(rows: list[dict]) -> None:
    """BenchmarkError if a loss is not about that of the last candidate."""
    reference = rows[-1]["first_loss"]
    for row in rows:
        if not abs(row["first_loss"] - reference) <= LOSS_TOLERANCE * abs(reference):
            shown = ", ".join(f"{row['candidate']} {row['first_loss']:.3f}" for row in rows)
            raise BenchmarkError(f"not the same loss at the first step: {shown}")
