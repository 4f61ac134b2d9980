"""Trial: numbers that are not finite stop a training before the update, on all ranks, and the images are named.

    python trials/non_finite.py [--short]

NaN or infinity is put into {the network's input, logits, a loss, a gradient, a running statistic} on {rank 0, rank 1}
at {a logged, an unlogged} step in {fp32, bf16}, at world sizes 1 and 2; and into a loss of either pass of
sharpness-aware minimization. Each case trains the smallest Swin-UNet and looks for: NonFiniteError on every rank, in
that very step, with the image ids of the rank where it began; weights and optimizer as after the step before; nothing
saved; and, from that rank, a file that the safe loader reads, whose weights are those before the update.

The query decoder's matcher cannot go on with NaN, so that there one rank stops alone: two ranks under the command's
launcher have to be gone within 60 s, with a non-zero exit code and a message that names the rank and the images.

`--short`, for the tests: nine of the cases.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import os
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from _training import MASK2FORMER, Process, small_config
from _trial import Tally
from detectron2.engine import HookBase, hooks
from detectron2.utils import comm

from ddl_d2.engine.launch import launch
from ddl_d2.engine.stopped_step import StoppedStep
from ddl_d2.engine.trainer import ForgeryTrainer
from ddl_d2.errors import NonFiniteError
from tests.conftest import make_tiny_set
from tests.ranks import on_ranks

PLACES = ("input", "logits", "loss", "gradient", "statistic")
# Writers write every second step: at iterations 1, 3, ...
LOGGED, UNLOGGED = 1, 2
SECONDS = 60.0


class Case(NamedTuple):
    """Where, on which rank, at which iteration; "pass 2" is the second one of sharpness-aware minimization."""

    place: str
    rank: int
    iteration: int
    precision: str = "float32"
    sam_pass: int = 0

    def __str__(self) -> str:
        sam = f", pass {self.sam_pass} of SAM" if self.sam_pass else ""
        logged = "logged" if self.iteration == LOGGED else "unlogged"
        return f"{self.place} on rank {self.rank}, {logged} step, {self.precision}{sam}"


class Injection(HookBase):
    """Puts `value` into the place of a case, when its time has come; and remembers the state before the step."""

    def __init__(self, case: Case, value: float) -> None:
        self.case, self.value = case, value
        self.calls = 0
        self.ids: list[str] = []

    def before_train(self) -> None:
        model = self.trainer.model
        model = getattr(model, "module", model)
        classifier = model.classifier if hasattr(model, "classifier") else model.sem_seg_head.predictor.class_embed
        network = {"logits": classifier, "loss": model}
        if self.case.place == "input":
            model.backbone.register_forward_pre_hook(lambda _, inputs: (self._spoilt(inputs[0]),))
        elif self.case.place in network:
            network[self.case.place].register_forward_hook(lambda _, inputs, output: self._spoilt(output))
        elif self.case.place == "gradient":
            next(p for p in model.parameters() if p.requires_grad).register_hook(self._spoilt)
        else:
            norm = next(m for m in model.modules() if getattr(m, "running_var", None) is not None)
            norm.register_forward_hook(lambda norm, inputs, output: self._spoil(norm.running_var))

    def before_step(self) -> None:
        self.calls = 0
        self.before = state(self.trainer)

    def _now(self) -> bool:
        self.calls += 1
        due = self.trainer.iter == self.case.iteration and comm.get_rank() == self.case.rank
        return due and self.calls == max(self.case.sam_pass, 1)

    def _spoilt(self, value: Any) -> Any:
        if not self._now():
            return value
        if isinstance(value, dict):
            name = min(value)
            return value | {name: value[name] * self.value}
        spoilt = value.clone()
        spoilt[..., 0] = self.value
        return spoilt

    def _spoil(self, buffer: torch.Tensor) -> None:
        if self._now():
            buffer.data[0] = self.value  # unseen by autograd, as an overflow in the layer itself would be


def state(trainer: ForgeryTrainer) -> dict[str, torch.Tensor]:
    """Copies of the weights (not of running statistics), and how many steps the optimizer has made."""
    model = getattr(trainer.model, "module", trainer.model)
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    steps = [s["step"] for s in trainer.optimizer.state.values()]
    return weights | {"steps": torch.tensor([float(s) for s in steps])}


def run_case(case: Case, number: int, data: Path, folder: Path) -> str:
    """What went wrong on this rank; "" if nothing did."""
    output = folder / str(number)
    changes = ["SOLVER.IMS_PER_BATCH", 2 * comm.get_world_size(), "SOLVER.MAX_ITER", case.iteration + 1]
    changes += ["SOLVER.AMP.ENABLED", case.precision == "bfloat16", "SOLVER.SAM.ENABLED", case.sam_pass > 0]
    trainer = ForgeryTrainer(small_config(data, output, *changes))
    value = (float("nan"), float("inf"))[number % 2]
    injection = Injection(case, value)
    trainer.register_hooks([injection])
    for hook in trainer._hooks:
        if isinstance(hook, hooks.PeriodicWriter):
            hook._period = 2
    try:
        trainer.train()
    except NonFiniteError as error:
        return problem(error, case, trainer, injection, output)
    return "it was not stopped"


def problem(error: NonFiniteError, case: Case, trainer: ForgeryTrainer, injection: Injection, output: Path) -> str:
    everyone = comm.all_gather([row["image_id"] for row in trainer.batch])
    # A gradient is the same on all ranks once it is averaged: it may have been any rank's.
    named = list(itertools.chain(*everyone)) if case.place == "gradient" else everyone[case.rank]
    writers = range(len(everyone)) if case.place == "gradient" else [case.rank]
    after = state(trainer)
    if trainer.iter != case.iteration:
        return f"stopped at iteration {trainer.iter}"
    if error.image_ids != named or not all(name in str(error) for name in named):
        return f"named {error.image_ids}, not {named}"
    if any(not torch.equal(after[name], value) for name, value in injection.before.items()):
        return "the weights or the optimizer changed"
    comm.synchronize()
    files = sorted(path.name for path in output.rglob("*.pth"))
    if files != [f"iter_{case.iteration}_rank{rank}.pth" for rank in writers]:
        return f"files {files}"
    stopped = StoppedStep.load(output / "failures" / files[0])
    if stopped.image_ids != everyone[stopped.rank] or len(stopped.batch) != 2:
        return f"the file is about {stopped.image_ids}"
    if case.sam_pass < 2 and any(
        not torch.equal(stopped.model[name], value) for name, value in injection.before.items() if name != "steps"
    ):
        return "the file's weights are not those before the update"
    return ""


def run_cases(rank: int, cases: list[Case], data: Path, folder: Path) -> list[tuple[str, str, float]]:
    """(case, problem, seconds) of each, one after the other in one process group."""
    logging.disable(logging.CRITICAL)
    results = []
    for number, case in enumerate(cases):
        started = time.perf_counter()
        results.append((str(case), run_case(case, number, data, folder), time.perf_counter() - started))
    return results


def all_cases(world_size: int) -> list[Case]:
    ranks = range(world_size)
    grid = itertools.product(PLACES, ranks, (LOGGED, UNLOGGED), ("float32", "bfloat16"))
    sam = itertools.product(("loss",), ranks, (UNLOGGED,), ("float32", "bfloat16"), (1, 2))
    return [*itertools.starmap(Case, grid), *itertools.starmap(Case, sam)]


def short_cases(world_size: int) -> list[Case]:
    if world_size == 1:
        return [Case(place, 0, UNLOGGED) for place in PLACES] + [Case("loss", 0, LOGGED, "bfloat16", 2)]
    return [Case("logits", 1, LOGGED), Case("gradient", 1, UNLOGGED, "bfloat16"), Case("loss", 0, UNLOGGED)]


def in_process(tally: Tally, choose: Callable[[int], list[Case]], data: Path, folder: Path) -> None:
    for world_size in (1, 2):
        results = on_ranks(run_cases, world_size, choose(world_size), data, folder / f"world{world_size}")
        if any(isinstance(result, str) for result in results):
            tally.check(False, f"world size {world_size}", results)
            continue
        for of_ranks in zip(*results, strict=True):
            name = f"world size {world_size}: {of_ranks[0][0]}"
            tally.check(not any(bad for _, bad, _ in of_ranks), name, [bad for _, bad, _ in of_ranks])


def lone_rank(args: Namespace) -> None:
    """One rank of a training of the query decoder, whose logits are spoilt on rank `args.rank` in the third step."""
    cfg = small_config(args.data, args.output, "SOLVER.IMS_PER_BATCH", 8, "SOLVER.MAX_ITER", 4, config=MASK2FORMER)
    trainer = ForgeryTrainer(cfg)
    injection = Injection(Case(args.place, args.rank, 2), float("nan"))
    trainer.register_hooks([injection])
    trainer.train()


def under_the_launcher(tally: Tally, place: str, rank: int, data: Path, folder: Path) -> None:
    """A rank that stops alone, in the matcher."""
    name = f"matcher, {place} on rank {rank} of 2"
    output = folder / f"alone_{place}_{rank}"
    output.mkdir(parents=True)
    words = Namespace(num_gpus=2, num_machines=1, machine_rank=0, dist_url="auto")
    words.data, words.output, words.place, words.rank = data, output, place, rank
    process = Process.fork(lambda: launch(lone_rank, words), output / "log")
    code = process.wait(2 * SECONDS)
    said = process.text()
    files = [path.name for path in (output / "failures").glob("*")]
    if files != [f"iter_2_rank{rank}.pth"]:
        tally.check(False, name, f"files {files}; {process.end_of_text()}")
        return
    kept = output / "failures" / files[0]
    seconds = time.time() - kept.stat().st_mtime
    stopped = StoppedStep.load(kept)
    ids_named = [image_id for image_id in stopped.image_ids if image_id in said]
    good = code not in (0, None) and f"rank {rank}" in said and "matching cost" in said and bool(ids_named)
    tally.check(good and seconds < SECONDS, name, f"code {code} after {seconds:.0f} s: {process.end_of_text()}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="nine cases, for the tests")
    args = parser.parse_args()
    tally = Tally("non-finite numbers")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = make_tiny_set(folder / "data")
        in_process(tally, short_cases if args.short else all_cases, data, folder)
        if not args.short:
            for place, rank in (("input", 0), ("logits", 1)):
                under_the_launcher(tally, place, rank, data, folder)
    return tally.finish()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
