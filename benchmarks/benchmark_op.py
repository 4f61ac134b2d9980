#!/usr/bin/env python3
"""Time the compiled multi-scale deformable attention against its PyTorch reference.

    python benchmarks/benchmark_op.py                          # CPU, three shapes, float32
    python benchmarks/benchmark_op.py --dtype bfloat16         # forward in bfloat16
    python benchmarks/benchmark_op.py --capability portable avx2 avx512
    python benchmarks/benchmark_op.py --device cuda --dtype float32 bfloat16
    python benchmarks/benchmark_op.py --peer                   # also PyPI's torch-ms-deform-attn, if installed

Before anything is timed, every candidate's result and gradients must equal the reference's; exit code 1 if not.
All candidates take turns in one process, so that a busy machine slows them alike. Printed are medians in
milliseconds, the minimum in brackets, and how many times faster than the reference the median is.
Self-attention as in a pixel decoder: levels at strides 8, 16, 32; 8 heads of 32 channels; 4 points, around the
query's own pixel with a standard deviation of 2 pixels.
"""

import argparse
import os
import platform
import statistics
import sys
import time

import torch
from tabulate import tabulate

from ddl_d2.io.atomic import write_json
from ddl_d2.layers.ms_deform_attn import extension_status, ms_deform_attn
from ddl_d2.layers.ms_deform_attn_reference import ms_deform_attn_reference

HEADS, CHANNELS, POINTS, STRIDES = 8, 32, 4, (8, 16, 32)
PEER = "torch-ms-deform-attn"


def parse_arguments(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", nargs="+", choices=["float32", "float16", "bfloat16"], default=["float32"],
                        help="dtype of the values; locations and weights are float32")  # fmt: skip
    parser.add_argument("--shape", nargs="+", default=["1x512x512", "4x512x512", "1x512x2048"],
                        help="batch x height x width of the image, e.g. 1x512x512")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=9, help="turns of every candidate (default 9)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: PyTorch's)")
    parser.add_argument("--capability", nargs="+", choices=["portable", "avx2", "avx512"],
                        help="instruction sets of the CPU kernel (default: the best)")  # fmt: skip
    parser.add_argument("--peer", action="store_true", help=f"also time {PEER} (pip install {PEER})")
    parser.add_argument("--json", metavar="FILE", help="also write every figure there")
    arguments = parser.parse_args(argv)
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: PyTorch sees no GPU (python -c 'import torch; print(torch.cuda.is_available())')")
    if arguments.rounds < 1:
        parser.error("--rounds must be at least 1")
    arguments.shape = [parse_shape(parser, text) for text in arguments.shape]
    return arguments


def parse_shape(parser, text):
    try:
        batch, height, width = (int(number) for number in text.split("x"))
    except ValueError:
        parser.error(f"--shape {text}: expected BATCHxHEIGHTxWIDTH, e.g. 1x512x512")
    if batch < 1 or min(height, width) < STRIDES[-1]:
        parser.error(f"--shape {text}: batch must be at least 1, height and width at least {STRIDES[-1]}")
    return batch, height, width


def make_inputs(batch, height, width, dtype, device):
    """Arguments of `ms_deform_attn`, levels on the CPU."""
    generator = torch.Generator().manual_seed(0)
    shapes = torch.tensor([(height // stride, width // stride) for stride in STRIDES])
    starts = shapes.prod(1).cumsum(0) - shapes.prod(1)
    pixels = int(shapes.prod(1).sum())
    centers = []
    for rows, columns in shapes.tolist():
        y, x = torch.meshgrid((torch.arange(rows) + 0.5) / rows, (torch.arange(columns) + 0.5) / columns, indexing="ij")
        centers.append(torch.stack([x, y], -1).view(-1, 2))
    offsets = 2 * torch.randn(batch, pixels, HEADS, len(STRIDES), POINTS, 2, generator=generator)
    locations = torch.cat(centers)[None, :, None, None, None] + offsets / shapes.flip(-1)[:, None]
    weights = torch.randn(batch, pixels, HEADS, len(STRIDES) * POINTS, generator=generator).softmax(-1)
    value = torch.randn(batch, pixels, HEADS, CHANNELS, generator=generator)
    weights = weights.view(locations.shape[:-1])
    return value.to(device, dtype), shapes, starts, locations.to(device), weights.to(device)


def peer_function():
    """The peer's op with our arguments, or a message that says why not."""
    try:
        from torch_ms_deform_attn import ms_deform_attn as peer
    except ImportError as error:
        raise SystemExit(f"--peer: cannot import {PEER} ({error}); pip install {PEER}") from error
    return peer


def candidates(arguments):
    """Return {name: (function, instruction set or None)}."""
    found = {"reference": (ms_deform_attn_reference, None)}
    if arguments.device == "cpu" and arguments.capability:
        found.update({f"ddl_d2 {name}": (ms_deform_attn, name) for name in arguments.capability})
    else:
        found["ddl_d2"] = (ms_deform_attn, None)
    if arguments.peer:
        found["peer"] = (peer_function(), None)
    return found


class Stopwatch:
    """Milliseconds of a function, by CUDA events on a GPU."""

    def __init__(self, device):
        self.cuda = device == "cuda"

    def __call__(self, function):
        if not self.cuda:
            start = time.perf_counter()
            function()
            return 1000 * (time.perf_counter() - start)
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start.record()
        function()
        end.record()
        end.synchronize()
        return start.elapsed_time(end)


def check_equal(functions, inputs):
    """Largest difference of any candidate's output or gradient from the reference's, as a share of its range.

    Locations' gradients jump where a point crosses a cell's edge, so a few single numbers of them may differ: what
    counts for them is the share of numbers that do.
    """
    worst = {}
    grad = torch.randn(inputs[0].shape[0], inputs[3].shape[1], HEADS * CHANNELS).to(inputs[0])
    expected = None
    for name, (function, capability) in functions.items():
        if capability:
            torch.ops.ddl_d2._cpu_capability(capability)
        leaves = [t.detach().requires_grad_() if t.is_floating_point() else t for t in inputs]
        out = function(*leaves)
        value, location, weight = torch.autograd.grad(out, [t for t in leaves if t.requires_grad], grad)
        found = [t.detach().double() for t in (out, value, weight, location)]
        expected = expected or found
        differences = [(a - b).abs() / b.abs().max() for a, b in zip(found, expected, strict=True)]
        flipped = (differences[3] > tolerance(inputs[0].dtype)).double().mean()
        worst[name] = max(*(float(d.max()) for d in differences[:3]), float(flipped))
    return worst


def tolerance(dtype):
    return 1e-4 if dtype == torch.float32 else 2e-2


def measure(functions, inputs, rounds, stopwatch):
    """{(name, direction): milliseconds of each round}; the first round of all warms up and does not count."""
    times = {}
    grad = torch.randn(inputs[0].shape[0], inputs[3].shape[1], HEADS * CHANNELS).to(inputs[0])
    for round_number in range(rounds + 1):
        for name, (function, capability) in functions.items():
            if capability:
                torch.ops.ddl_d2._cpu_capability(capability)
            with torch.no_grad():
                forward = stopwatch(lambda: function(*inputs))  # noqa: B023
            leaves = [t.detach().requires_grad_() if t.is_floating_point() else t for t in inputs]
            out = function(*leaves)
            trainable = [t for t in leaves if t.requires_grad]
            backward = stopwatch(lambda: torch.autograd.grad(out, trainable, grad))  # noqa: B023
            if round_number:
                times.setdefault((name, "forward"), []).append(forward)
                times.setdefault((name, "backward"), []).append(backward)
    return times


def main(argv=None):
    arguments = parse_arguments(argv)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    status = extension_status()
    if not status.available:
        print(f"note: {status.reason}; the op below is the reference itself", file=sys.stderr)
    functions = candidates(arguments)
    machine = torch.cuda.get_device_name() if arguments.device == "cuda" else platform.machine()
    print(f"{machine}, {torch.get_num_threads()} threads, torch {torch.__version__}, {status}")
    print(f"load average {os.getloadavg()[0]:.1f}, {arguments.rounds} rounds; ms: median (minimum)")
    rows, record = [], []
    for dtype in arguments.dtype:
        for shape in arguments.shape:
            inputs = make_inputs(*shape, getattr(torch, dtype), arguments.device)
            for name, difference in check_equal(functions, inputs).items():
                if not difference <= tolerance(inputs[0].dtype):
                    print(f"error: {name} differs from the reference by {difference:.2g} at {shape} in {dtype}",
                          file=sys.stderr)  # fmt: skip
                    return 1
            times = measure(functions, inputs, arguments.rounds, Stopwatch(arguments.device))
            for (name, direction), values in times.items():
                reference = statistics.median(times["reference", direction])
                median = statistics.median(values)
                text = f"{median:.2f} ({min(values):.2f})"
                rows.append(["x".join(map(str, shape)), dtype, direction, name, text, f"{reference / median:.1f}x"])
                record.append({"shape": shape, "dtype": dtype, "direction": direction, "candidate": name, "ms": values,
                               "median_ms": median, "faster_than_reference": reference / median})  # fmt: skip
    rows.sort(key=lambda row: (row[1], arguments.shape.index(tuple(map(int, row[0].split("x")))), row[2] != "forward"))
    if arguments.json:
        about = {"machine": machine, "threads": torch.get_num_threads(), "torch": torch.__version__}
        write_json(arguments.json, about | {"figures": record})
    print(tabulate(rows, headers=["image", "dtype", "direction", "candidate", "ms", "faster"], disable_numparse=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
