"""Trial: whatever ends a training, and whatever befalls its newest files, nothing saved before is lost.

    python trials/crash.py [--short] [--seed 0]

50 SIGKILLs and 50 SIGTERMs at random times (a chain of resumed runs; some with two processes, to the parent, to one
rank, to all, or under torchrun), 5 SIGTERMs in an evaluation, 10 full disks (a limit on the size of files, set while
the run is going), 10 bad tags, 10 damaged newest checkpoints. After each, all checkpoints are whole, and the next run
says from which it resumes: the newest.
"""

from __future__ import annotations

import argparse
import re
import resource
import shutil
import signal
import struct
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _training import ROOT, Process, train, whole, words
from _trial import Tally

from tests.conftest import make_tiny_set

KEPT = 3
TOOL = str(ROOT / "tools/train_net.py")
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
STARTED = "Starting training from iteration"


class Chain:
    """One output folder, and the runs in it, each of which goes on from where the one before was ended."""

    def __init__(self, folder: Path, data: Path, tally: Tally, seed: int, network: str = "efficientnet_lite0") -> None:
        self.output, self.log = folder / "output", folder / "log"
        self.data = data
        self.network = network
        self.tally = tally
        self.random = np.random.default_rng(seed)

    def arguments(self, *flags: str, **options: object) -> list[str]:
        fixed: dict[str, object] = {"SOLVER__CHECKPOINT_PERIOD": 1, "SOLVER__MAX_TO_KEEP": KEPT}
        fixed |= {"MODEL__TIMM__NAME": self.network}
        options = {"SOLVER__MAX_ITER": 100_000} | fixed | options
        return words(self.data, self.output, "--resume", *flags, **options)

    def newest(self) -> int:
        return max(whole(self.output).values(), default=-1) if self.output.exists() else -1

    def interrupt(self, number: int, case: str, delay: float | None = None) -> None:
        """A run that is sent a signal at a random time, most often while it trains."""
        before = self.newest()
        run = Process.fork(lambda: train(self.arguments()), self.log)
        if self.random.random() < 0.9:
            run.wait_for(STARTED, 300)
        run.wait_for("never", self.random.uniform(0, 2.0) if delay is None else delay)
        run.send(number, group=bool(self.random.integers(2)))
        code = run.wait(300)
        self.judge(run, code, number, case, before)

    def judge(self, run: Process, code: int | None, number: int, case: str, before: int) -> None:
        said = run.text()
        found = whole(self.output) if self.output.exists() else {}
        newest = max(found.values(), default=-1)
        damaged = [path.name for path in self.output.glob("*.pth") if path.name not in found]
        problems = [
            *([f"exit code {code}"] if not self.right_code(code, number, STARTED in said) else []),
            *([f"newest was {before}, is {newest}"] if newest < before else []),
            *([f"{len(found)} checkpoints are left"] if len(found) < min(KEPT, newest + 1) else []),
            *([f"damaged: {damaged}"] if damaged else []),
            *self.said_resumed(said, before),
        ]
        if number == signal.SIGTERM and code == 143:
            problems += self.stopped(said, newest)
        self.tally.check(not problems, f"{case} (iteration {newest})", f"{problems} {run.end_of_text()}")

    @staticmethod
    def right_code(code: int | None, number: int, started: bool) -> bool:
        # Before there is anything to save a SIGTERM ends the process as it ends any other.
        return (
            code == -number or (number == signal.SIGTERM and code == 143)
            if not started
            else (code == (143 if number == signal.SIGTERM else -number))
        )

    def said_resumed(self, said: str, newest: int) -> list[str]:
        match = re.search(r"Resumed from \S+, iteration (\d+)", said)
        if STARTED not in said or (newest < 0 and match is None):
            return []
        return [] if match and int(match[1]) == newest else [f"did not resume from {newest}: {match and match[0]}"]

    def stopped(self, said: str, newest: int) -> list[str]:
        tag = (self.output / "last_checkpoint").read_text()
        match = re.search(r"Stopped by a signal after iteration (\d+), which is saved", said)
        if match and int(match[1]) == newest and tag == f"model_{newest:07d}.pth":
            return []
        return [f"not saved at the stop: {match and match[0]}, newest {newest}, tag {tag}"]

    def interrupt_ranks(self, target: str, case: str) -> None:
        """SIGTERM to a run of two processes: to the `parent`, to `rank 0`, to `rank 1`, to `all`; or to `torchrun`."""
        before = self.newest()
        launcher = TORCHRUN if "torchrun" in target else []
        flags = [] if launcher else ["--num-gpus", "2"]
        run = Process.start([*launcher, TOOL, *self.arguments(*flags)], self.log)
        if not run.wait_for(STARTED, 600):
            self.tally.check(False, case, f"it did not start: {run.end_of_text()}")
            run.kill_group()
            return
        run.wait_for("never", self.random.uniform(0, 2.0))
        ranks = [pid for pid, line in run.descendants().items() if "train_net.py" in line] if launcher else run.ranks()
        if "rank" in target:
            Process(sorted(ranks)[int(target[-1])], self.log).send(signal.SIGTERM)
        else:
            run.send(signal.SIGTERM, group=target == "all")
        code = run.wait(300)
        if launcher and code is not None:
            # torchrun has its own code; those of the ranks are in what it says, if it was not itself told to stop.
            code = 143 if code != 0 and (target == "torchrun" or "exitcode  : 143" in run.text()) else code
        self.judge(run, code, signal.SIGTERM, case, before)


def interrupted(chain: Chain, kills: int, ranks: list[str]) -> None:
    for index in range(kills):
        chain.interrupt(signal.SIGKILL, f"SIGKILL {index}")
        if index < kills - len(ranks):
            chain.interrupt(signal.SIGTERM, f"SIGTERM {index}")
    for target in ranks:
        chain.interrupt_ranks(target, f"SIGTERM of two processes, to {target}")


def evaluations(chain: Chain, count: int) -> None:
    """SIGTERM while the validation set is gone through: it ends there, the steps are saved, and it is repeated."""
    options = {"TEST__EVAL_PERIOD": 1, "DATASETS__TEST": ("ddl_i_valid",), "SOLVER__CHECKPOINT_PERIOD": 100_000}
    for index in range(count):
        before = chain.newest()
        run = Process.fork(lambda: train(chain.arguments(**options)), chain.log)
        run.wait_for("Evaluating first", 300)
        run.wait_for(rf"Starting training(?s:.*)(Start inference(?s:.*)){{{2 + index % 3}}}", 300)
        run.send(signal.SIGTERM)
        code, said = run.wait(300), run.text()
        good = (
            code == 143
            and chain.newest() > before
            and "Evaluating first" in said
            and re.search("Stopped by a signal (during an evaluation|after iteration)", said) is not None
        )
        chain.tally.check(good, f"SIGTERM in an evaluation {index}", f"{before} {code} {run.end_of_text()}")


def full_disk(chain: Chain, index: int, lasting: bool) -> None:
    """While the run is going no file may grow beyond a random size; in the end it may again, or not."""
    shutil.rmtree(chain.output, ignore_errors=True)
    # Many steps, so that the run is not over before the limit is set.
    steps = {"SOLVER__MAX_ITER": 60, "SOLVER__CHECKPOINT_PERIOD": 5}
    run = Process.fork(lambda: train(chain.arguments(**steps)), chain.log)
    run.wait_for("Saving checkpoint to .*model_0000009", 300)
    size = (chain.output / "model_0000004.pth").stat().st_size
    limit = int(chain.random.integers(200_000, size - 1))
    _, hard = resource.prlimit(run.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(run.pid, resource.RLIMIT_FSIZE, (limit, hard))
    failed = run.wait_for("cannot save", 300)
    before = whole(chain.output)
    if not lasting:
        resource.prlimit(run.pid, resource.RLIMIT_FSIZE, (hard, hard)) if run.poll() is None else None
    code = run.wait(300)
    found, said = whole(chain.output), run.text()
    problems = [
        *([] if failed else ["no save failed"]),
        *([] if "Training goes on; the next try is at iteration" in said else ["training did not go on"]),
        *([] if (code != 0 if lasting else code == 0) else [f"exit code {code}"]),
        *([] if lasting or found.get("model_final.pth") == 59 else ["no final checkpoint"]),
        *([] if not lasting or "error: cannot save" in said else ["the failure is not what it ends with"]),
        *([] if not lasting or before.keys() <= found.keys() else [f"{before} became {found}"]),
        *[f"left: {path.name}" for path in chain.output.iterdir() if ".tmp-" in path.name],
        *[f"damaged: {path.name}" for path in chain.output.glob("*.pth") if path.name not in found],
    ]
    case = f"full disk {index} at {limit} of {size} bytes{', to the end' if lasting else ''}"
    chain.tally.check(not problems, case, f"{problems} {run.end_of_text()}")


def write_tag(content: bytes) -> Callable[[Path], None]:
    return lambda output: (output / "last_checkpoint").write_bytes(content) and None


def no_tag(output: Path) -> None:
    (output / "last_checkpoint").unlink()


def link_to_nowhere(output: Path) -> None:
    no_tag(output)
    (output / "last_checkpoint").symlink_to("/nowhere/at/all")


def good_file_outside(output: Path) -> None:
    shutil.copy(output / "model_0000001.pth", output.parent / "outside.pth")
    write_tag(b"../outside.pth")(output)


BAD_TAGS: dict[str, Callable[[Path], None]] = {
    "missing": no_tag,
    "empty": write_tag(b""),
    "blank": write_tag(b" \n"),
    "names a file that is gone": write_tag(b"model_0000099.pth"),
    "names a file outside": good_file_outside,
    "names an absolute path": write_tag(b"/etc/passwd"),
    "binary": write_tag(bytes(range(256))),
    "as long as a checkpoint": write_tag(b"x" * 1_000_000),
    "names the folder": write_tag(b"."),
    "a link to nowhere": link_to_nowhere,
}


def resumes(chain: Chain, expected: int, case: str, says: str) -> None:
    """The next run says what was wrong, starts after iteration `expected`, ends well and leaves a good tag."""
    end = expected + 2
    run = Process.fork(lambda: train(chain.arguments(SOLVER__MAX_ITER=end)), chain.log)
    code = run.wait(300)
    tag = chain.output / "last_checkpoint"
    good = (
        code == 0
        and re.search(rf"Resumed from \S+, iteration {expected}\b", run.text()) is not None
        and says in run.text()
        and tag.is_file()
        and tag.read_text() == "model_final.pth"
        and whole(chain.output)["model_final.pth"] == end - 1
    )
    chain.tally.check(good, case, f"exit code {code} {run.end_of_text()}")


def damage(path: Path, random: np.random.Generator, flip: bool) -> str:
    """Cut the file off at a random length, or change one of its bits."""
    content = bytearray(path.read_bytes())
    at = int(random.integers(len(content)))
    if flip:
        # In a record: what pads the space between two of them is neither read nor in a checksum.
        record = random.choice(np.array([r for r in zipfile.ZipFile(path).infolist() if r.file_size], dtype=object))
        name_length, extra_length = struct.unpack_from("<HH", content, record.header_offset + 26)
        start = record.header_offset + 30 + name_length + extra_length
        at = start + int(random.integers(record.file_size))
        content[at] ^= 1 << int(random.integers(8))
    path.write_bytes(content if flip else content[:at])
    return f"a bit of byte {at} changed" if flip else f"cut off at {at} of {len(content)} bytes"


def files_that_go_bad(chain: Chain, tags: list[str], damages: int) -> None:
    shutil.rmtree(chain.output, ignore_errors=True)
    run = Process.fork(lambda: train(chain.arguments(SOLVER__MAX_ITER=4)), chain.log)
    chain.tally.check(run.wait(300) == 0, "a run to start from", run.end_of_text())
    good = chain.output
    (good / "model_final.pth").unlink()
    (good / "last_checkpoint").write_text("model_0000003.pth")
    chain.output = good.with_name("copy")
    for name in tags:
        shutil.rmtree(chain.output, ignore_errors=True)
        shutil.copytree(good, chain.output)
        BAD_TAGS[name](chain.output)
        resumes(chain, 3, f"tag: {name}", "the tag last_checkpoint ")
    for index in range(damages):
        shutil.rmtree(chain.output, ignore_errors=True)
        shutil.copytree(good, chain.output)
        what = damage(chain.output / "model_0000003.pth", chain.random, flip=index % 3 == 2)
        (chain.output / f"model_0000004.pth.tmp-{index + 1}").write_bytes(b"left")
        resumes(chain, 2, f"newest checkpoint: {what}", "Not resumed from model_0000003.pth: ")
        left = chain.output / f"model_0000004.pth.tmp-{index + 1}"
        if left.exists():
            chain.tally.check(False, "leftovers are cleared away", left.name)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--short", action="store_true", help="a few of each, one process, a small network")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    tally = Tally("crash")
    with tempfile.TemporaryDirectory(prefix="ddl_d2-crash-") as name:
        folder = Path(name)
        # A save of the small one is soon over: a signal seldom meets it.
        network = "test_efficientnet" if args.short else "efficientnet_lite0"
        chain = Chain(folder, make_tiny_set(folder / "data"), tally, args.seed, network)
        ranks = ["parent", "rank 0", "rank 1", "all", "torchrun", "torchrun, rank 1"]
        interrupted(chain, 2 if args.short else 50, [] if args.short else ranks)
        evaluations(chain, 0 if args.short else 5)
        for index in range(1 if args.short else 10):
            full_disk(chain, index, lasting=index % 3 == 2)
        files_that_go_bad(chain, list(BAD_TAGS)[: 1 if args.short else None], 1 if args.short else 10)
    return tally.finish()


if __name__ == "__main__":
    sys.exit(main())
