"""Whether all is right on a GPU, and how fast it is: one command, about eight minutes on one of the H100 class.

    python benchmarks/gpu_check.py --output output/gpu_check
    python benchmarks/gpu_check.py --device cpu --output output/gpu_check    the same steps, tiny, without a GPU

Steps: the tests of the operator, its speed against the reference, inference and training against transformers if that
is installed, memory at full resolution, trainings in bfloat16 and float16 and compiled, and on two GPUs one of two
processes. Each has a limit of its own, so that a slow one costs no other. The folder gets a log of each step, and
summary.json. Exit code 0: all went well; 1: a step failed; 2: there is no GPU.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from tabulate import tabulate

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PYTHON = sys.executable


@dataclass
class Step:
    """One command.

    Attributes:
        name: of its log, and in the table.
        command: its words.
        limit: seconds it may take.
        figures: the JSON file that it leaves; of a training the metrics of its steps.
        skipped: why it is left out; "" if it runs.
    """

    name: str
    command: list[str]
    limit: int
    figures: Path | None = None
    skipped: str = ""
    result: dict = field(default_factory=dict)

    def run(self, folder: Path) -> None:
        if self.skipped:
            self.result = {"step": self.name, "outcome": "left out", "seconds": 0.0, "why": self.skipped}
            return
        start = time.perf_counter()
        with open(folder / f"{self.name}.log", "w", encoding="utf-8") as log:
            try:
                code = subprocess.run(
                    self.command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, timeout=self.limit, check=False
                ).returncode
                outcome, why = ("passed", "") if code == 0 else ("failed", f"exit code {code}")
            except subprocess.TimeoutExpired:
                outcome, why = "failed", f"longer than {self.limit} s"
        seconds = round(time.perf_counter() - start, 1)
        figures = _figures(self.figures) if self.figures and self.figures.exists() else None
        if outcome == "passed" and isinstance(figures, list) and not _learns(figures):
            outcome, why = "failed", "a loss is not finite, or none was written"
        self.result = {"step": self.name, "outcome": outcome, "seconds": seconds, "why": why, "figures": figures}


def _figures(path: Path) -> dict | list:
    text = path.read_text(encoding="utf-8")
    return json.loads(text) if path.name != "metrics.json" else [json.loads(line) for line in text.splitlines()]


def _learns(metrics: list[dict]) -> bool:
    losses = [row["total_loss"] for row in metrics if "total_loss" in row]
    return bool(losses) and all(map(math.isfinite, losses))


def list_steps(device: str, folder: Path) -> list[Step]:
    gpu = device == "cuda"
    shapes = ["2x512x512", "32x512x512", "1x512x2048"] if gpu else ["1x64x64"]
    dtypes = ["float32", "bfloat16", "float16"] if gpu else ["float32"]
    sizes, full = (["512x512", "512x1024"], "1024x2048") if gpu else (["64x64"], "64x128")
    # One thread: two would wait for each other on cores that others use.
    rounds = ["--rounds", "5"] if gpu else ["--rounds", "1", "--threads", "1"]
    tests = [PYTHON, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "tests/layers/test_ms_deform_attn.py", "-k"]
    model = [PYTHON, str(HERE / "benchmark_model.py"), "--device", device, *rounds]
    model += ["--dtype", *dtypes[:2]] if gpu else ["--no-peer", "--queries", "5", "--backbone", "resnet50"]
    steps = [
        Step("op_tests", [*tests, "cuda" if gpu else "random_shapes and not cuda"], 150),
        _measured("op_speed", folder, 90, PYTHON, str(HERE / "benchmark_op.py"), "--device", device, *rounds,
                  "--dtype", *dtypes, "--shape", *shapes),
        _measured("inference", folder, 120, *model, "--mode", "inference", "--size", *sizes),
        _measured("training", folder, 150, *model, "--mode", "training", "--size", sizes[0]),
        _measured("memory", folder, 90, *model, "--mode", "inference", "--memory", "--size", full),
        Step("data", [PYTHON, "-m", "ddl_d2.cli.main", "make-forgeries", "--builtin", "--overwrite",
                      "--count", "120" if gpu else "20", "--output", str(folder / "data")], 90),
    ]  # fmt: skip
    for name, words in (
        ("bfloat16", ["SOLVER.AMP.ENABLED", "True", "SOLVER.AMP.PRECISION", "bfloat16"]),
        ("float16", ["SOLVER.AMP.ENABLED", "True", "SOLVER.AMP.PRECISION", "float16"]),
        ("compiled", ["MODEL.COMPILE", "True"]),
    ):
        skipped = "" if gpu or name == "bfloat16" else "needs a GPU"
        steps.append(_training(name, folder, device, words, skipped=skipped))
    alone = "" if torch.cuda.device_count() > 1 and gpu else "needs two GPUs"
    steps.append(_training("two_processes", folder, device, [], skipped=alone, before=["--num-gpus", "2"]))
    return steps


def _measured(name: str, folder: Path, limit: int, *command: str) -> Step:
    figures = folder / f"{name}.json"
    return Step(name, [*command, "--json", str(figures)], limit, figures)


def _training(
    name: str, folder: Path, device: str, words: list[str], *, skipped: str, before: list[str] | None = None
) -> Step:
    """A short training of the query decoder, on the forgeries of the step `data`."""
    gpu, output = device == "cuda", folder / name
    sizes = [] if gpu else ["INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MAX_SIZE_TRAIN", "64"]
    command = [
        PYTHON, "tools/train_net.py", "--overwrite", *(before or []),
        "--config-file", "configs/quickstart/mask2former_efficientnet_lite0.yaml", "MODEL.DEVICE", device,
        "MODEL.TIMM.PRETRAINED", "", "DATASETS.DDL_ROOT", str(folder / "data"), "OUTPUT_DIR", str(output),
        "SOLVER.MAX_ITER", "60" if gpu else "2", "SOLVER.IMS_PER_BATCH", "16" if gpu else "2", "TEST.EVAL_PERIOD", "0",
        "DATASETS.TEST", "()",
        "DATALOADER.NUM_WORKERS", "4" if gpu else "0", *sizes, *words,
    ]  # fmt: skip
    return Step(name, command, 150, output / "metrics.json", skipped)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--output", type=Path, default=Path("output/gpu_check"), metavar="DIR")
    parser.add_argument("--only", nargs="+", metavar="STEP", help="these steps (default: all)")
    return parser


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    if args.device == "cuda" and not torch.cuda.is_available():
        print("no GPU: PyTorch sees none here, so there is nothing to check. --device cpu (make gpu-check DEVICE=cpu) "
              "runs the same steps, tiny, on the CPU", file=sys.stderr)  # fmt: skip
        return 2
    folder = args.output.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    steps = [step for step in list_steps(args.device, folder) if not args.only or step.name in args.only]
    if args.only and len(steps) < len(set(args.only)):
        build_parser().error(f"--only: there are {', '.join(step.name for step in list_steps(args.device, folder))}")
    for step in steps:
        step.run(folder)
        print(f"{step.name}: {step.result['outcome']} {step.result['why']}".rstrip(), flush=True)
    results = [step.result for step in steps]
    about = {
        "device": torch.cuda.get_device_name() if args.device == "cuda" else "cpu",
        "torch": torch.__version__,
        "transformers": importlib.util.find_spec("transformers") is not None,
    }
    summary = {"about": about, "steps": results}
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    print(tabulate([[r["step"], r["outcome"], r["seconds"], r["why"]] for r in results],
                   headers=["step", "outcome", "seconds", "why"]))  # fmt: skip
    return int(any(result["outcome"] == "failed" for result in results))


if __name__ == "__main__":
    sys.exit(main())
