"""Trial: memory does not grow with queries, with the size of an image beyond its map, or with the number of images.

    python trials/memory.py [--short]

- painting: the map that is painted in bands equals the one of all queries painted at once;
- whole: two images of 3648 × 5472 (real and fake) evaluated under the paper's test size, with a prediction store;
- demo: one of them through the demo, with overlay and JSON file;
- tiles: the two evaluated unresized, in tiles of 1024;
- many: 2,000 small images, of 200 sizes ten times each, evaluated with two workers and a prediction store.

The network of the large images is configs/ddl_i/mask2former_resnet50.yaml's with random weights and 100 queries, all
confident, so that 20 instances are painted. Bars: 4 GiB at the peak; after 2,000 images less than 2 % more than after
200, in the process and in its workers. Each case runs in a process of its own. A peak is Linux's VmHWM (`ru_maxrss`
says the same, but for a process that was started by a larger one). What is compared over time is RssAnon (pages of
libraries come and go with the system's needs), in the process itself after its C library has given back what is free:
of the free heap, which is of one size from about the fiftieth image on, more and more pages are touched. The 200
sizes are all met before that comparison begins, since kernels are kept for each shape that was seen (up to a number).

`--short`, for the tests: a small network, sides of a quarter, 0.35 GiB besides what the program takes before the first
image; and 30 images of one size, of which 12 warm up.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import multiprocessing
import re
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from _trial import Tally
from detectron2.modeling import build_model
from PIL import Image

from ddl_d2.data.datasets import load_config
from ddl_d2.data.transforms.resize import ResizeToFit
from ddl_d2.engine.trainer import ForgeryTrainer
from ddl_d2.inference.images import predict_images
from ddl_d2.inference.predictor import ForgeryPredictor
from ddl_d2.modeling.mask2former.painting import painted_sum
from ddl_d2.modeling.test_time.build import wrapped_for_testing
from ddl_d2.predictions.store import PredictionStore
from ddl_d2.utils.malloc import keep_freed_memory

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
DATASET = "ddl_i_valid"
GIB = 2**30
EXACT = 1e-6
GROWTH = 0.02
# Workers are so many images ahead, and gone before the last.
AHEAD = 10


@dataclass(frozen=True)
class Scale:
    """How large a run is.

    `gib`: bar of the peak or (`besides`) of what it adds to the memory before; `sides`: smallest and largest of many
    `images`, of which `warm` warm up; `painted`: maps.
    """

    network: list[str]
    size: tuple[int, int]
    tile: int
    gib: float
    besides: bool
    images: int
    sides: tuple[int, int]
    warm: int
    painted: list[tuple[int, int]]


SMALL = [
    "quickstart/mask2former_efficientnet_lite0.yaml",
    "MODEL.SEM_SEG_HEAD.CONVS_DIM", "32",
    "MODEL.SEM_SEG_HEAD.MASK_DIM", "32",
    "MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS", "1",
    "MODEL.MASK_FORMER.HIDDEN_DIM", "32",
    "MODEL.MASK_FORMER.DEC_LAYERS", "3",
]  # fmt: skip
TINY = [*SMALL, "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES", "6"]
FULL = Scale(
    network=["ddl_i/mask2former_resnet50.yaml"], size=(3648, 5472), tile=1024, gib=4.0, besides=False,
    images=2000, sides=(200, 400), warm=200, painted=[(512, 768), (416, 1248), (96, 2048)],
)  # fmt: skip
SHORT = Scale(
    network=SMALL, size=(912, 1368), tile=512, gib=0.35, besides=True,
    images=30, sides=(300, 300), warm=12, painted=[(96, 288)],
)  # fmt: skip


def make_images(root: Path, sizes: list[tuple[int, int]]) -> None:
    """Noisy clouds in DDL-I's layout, real and fake (with a square of another cloud) in turn; JPEG."""
    for folder in ("real", "fake", "masks"):
        (root / "valid" / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number, (height, width) in enumerate(sizes):
        pixels = np.asarray(_clouds(rng, height, width) + rng.normal(0, 8, (height, width, 1)))
        folder = "real"
        if number % 2:
            folder = "fake"
            top, left = height // 4, width // 4
            pixels[top : 2 * top, left : 2 * left] = _clouds(rng, top, left)
            mask = np.zeros((height, width), np.uint8)
            mask[top : 2 * top, left : 2 * left] = 255
            Image.fromarray(mask).save(root / "valid/masks" / f"{number}.png")
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(
            root / "valid" / folder / f"{number}.jpg", quality=90
        )


def repeated_sizes(scale: Scale) -> list[tuple[int, int]]:
    """`warm` sizes, and the same again in other orders."""
    rng = np.random.default_rng(1)
    smallest, largest = scale.sides
    sizes = rng.integers(smallest, largest + 1, (scale.warm, 2)).tolist()
    rounds = -(-scale.images // scale.warm)
    return [tuple(sizes[i]) for _ in range(rounds) for i in rng.permutation(scale.warm)][: scale.images]


def _clouds(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), np.float32)


def memory_of(field: str, process: str = "self") -> int:
    """Bytes of a field of /proc: VmRSS (now), RssAnon (of it, what no file holds), VmHWM (the most so far)."""
    return 1024 * int(re.search(rf"^{field}:\s+(\d+)", Path(f"/proc/{process}/status").read_text(), re.MULTILINE)[1])


def build(network: list[str], *options: str) -> tuple[Any, Any]:
    """(frozen config, network in eval mode with random weights, as a trained one would be handed out), on a CPU."""
    keep_freed_memory()  # as the tools do
    always = ["MODEL.DEVICE", "cpu", "MODEL.RESNETS.NORM", "BN", "MODEL.TIMM.PRETRAINED", "",
              "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES", "100", "DATASETS.TEST", f"('{DATASET}',)"]  # fmt: skip
    config, *changes = network
    cfg = load_config(CONFIGS / config, [*always, *changes, *options])
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    with torch.no_grad():
        bias = model.sem_seg_head.predictor.class_embed.bias
        bias[-2] = bias[-1] + 4  # every query confident
    return cfg, wrapped_for_testing(cfg, model)


def evaluate(cfg: Any, model: Any, watch: Callable[[int], None] = lambda count: None) -> Any:
    """Evaluate with a store, as `tools/train_net.py --eval-only` does; `watch` hears how many images are done."""
    evaluator = ForgeryTrainer.build_evaluator(cfg, DATASET, save_predictions=True)
    process, done = evaluator.process, 0

    def counted(inputs, outputs):
        nonlocal done
        process(inputs, outputs)
        done += len(inputs)
        watch(done)

    evaluator.process = counted
    return ForgeryTrainer.test(cfg, model, [evaluator])["ddl"]


def evaluate_large(network: list[str], root: str, *options: str) -> dict[str, Any]:
    """Memory before the first image and at the peak, in bytes."""
    output = f"{root}/{'tiles' if 'TEST.TILE.SIZE' in options else 'whole'}"
    cfg, model = build(
        network, "DATASETS.DDL_ROOT", root, "OUTPUT_DIR", output, "DATALOADER.NUM_WORKERS", "0", *options
    )
    before = memory_of("VmRSS")
    started = time.perf_counter()
    evaluate(cfg, model)
    seconds = time.perf_counter() - started
    store = PredictionStore(f"{output}/inference/{DATASET}/predictions")
    shapes = [store.read_map(name).shape for name in store]
    return {"before": before, "peak": memory_of("VmHWM"), "shapes": shapes, "seconds": seconds / len(shapes)}


def demo_large(network: list[str], root: str) -> dict[str, Any]:
    """The same for the demo of one image."""
    cfg, model = build(network)
    predictor = ForgeryPredictor(model, ResizeToFit(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST))
    instances = []

    def predict(image):
        output = predictor(image)
        instances.append(len(output["instances"]))
        return output

    before = memory_of("VmRSS")
    rows, _ = predict_images([(Path(root, "valid/fake/1.jpg"), Path(root, "demo/1.png"))], predict)
    return {"before": before, "peak": memory_of("VmHWM"), "instances": instances, "rows": len(rows)}


def evaluate_many(root: str, warm: int, images: int) -> dict[str, Any]:
    """Memory after `warm` images and at the end: of this process, with and without its free heap; of its workers."""
    options = ["INPUT.MIN_SIZE_TEST", "0", "DATALOADER.NUM_WORKERS", "2"]
    cfg, model = build(TINY, "DATASETS.DDL_ROOT", root, "OUTPUT_DIR", f"{root}/many", *options)
    found: dict[str, list[int]] = {"as it is": [], "in use": [], "workers": []}

    def watch(done: int) -> None:
        if done in (warm, images):
            found["as it is"].append(memory_of("RssAnon"))
            ctypes.CDLL(None).malloc_trim(0)
            found["in use"].append(memory_of("RssAnon"))
        if done in (warm, images - AHEAD):
            workers = multiprocessing.active_children()
            assert len(workers) == 2
            found["workers"].append(sum(memory_of("RssAnon", str(worker.pid)) for worker in workers))

    metrics = evaluate(cfg, model, watch)
    return {**found, "images": int(metrics["num_images"])}


def paint_both_ways(sizes: list[tuple[int, int]]) -> dict[str, float]:
    """{size: the largest difference of the map painted in bands from that of all queries painted at once, in fp64}."""
    found = {}
    for height, width in sizes:
        torch.manual_seed(0)
        masks, weights = 6 * torch.randn(100, height // 4, width // 4), torch.rand(100) / 100
        bands = painted_sum(masks, weights, (height, width))
        up = F.interpolate(masks[None].double(), size=(height, width), mode="bilinear", align_corners=False)[0]
        at_once = (weights.double()[:, None, None] * up.sigmoid_()).sum(0)
        found[f"{height} x {width}"] = float((bands - at_once).abs().max())
    return found


def _child(function: Callable[..., Any], arguments: tuple, connection: Any) -> None:
    connection.send(function(*arguments))


def in_a_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns in a process that has done nothing yet; None if it died."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(function, arguments, sender))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        return None
    finally:
        process.join()


def check_peak(tally: Tally, case: str, found: dict[str, Any] | None, scale: Scale, expected: dict[str, Any]) -> None:
    if not tally.check(found is not None, case, "its process died"):
        return
    print(f"{case}: {found['peak'] / GIB:.2f} GiB at the peak, {found['before'] / GIB:.2f} before, {json.dumps(found)}")
    counted = (found["peak"] - found["before"] * scale.besides) / GIB
    tally.check(counted <= scale.gib, f"{case}, memory", f"{counted:.2f} GiB, the bar is {scale.gib}")
    for name, value in expected.items():
        tally.check(found[name] == value, f"{case}, {name}", found[name])


def trial(scale: Scale) -> Tally:
    """All cases."""
    tally = Tally("memory")
    for size, difference in (in_a_process(paint_both_ways, scale.painted) or {"no size": 1.0}).items():
        print(f"painting {size}: differs by {difference:.1e}")
        tally.check(difference <= EXACT, f"painting {size}", difference)
    with tempfile.TemporaryDirectory() as name:
        large, many = f"{name}/large", f"{name}/many"
        make_images(Path(large), [scale.size] * 2)
        shapes = {"shapes": [scale.size] * 2}
        check_peak(tally, "whole", in_a_process(evaluate_large, scale.network, large), scale, shapes)
        demo = in_a_process(demo_large, scale.network, large)
        check_peak(tally, "demo", demo, scale, {"instances": [20], "rows": 1})
        tiled = ["INPUT.MIN_SIZE_TEST", "0", "TEST.TILE.SIZE", str(scale.tile)]
        check_peak(tally, "tiles", in_a_process(evaluate_large, scale.network, large, *tiled), scale, shapes)
        make_images(Path(many), repeated_sizes(scale))
        check_growth(tally, in_a_process(evaluate_many, many, scale.warm, scale.images), scale)
    return tally


def check_growth(tally: Tally, found: dict[str, Any] | None, scale: Scale) -> None:
    if not tally.check(found is not None, "many", "its process died"):
        return
    tally.check(found["images"] == scale.images, "many, images", found["images"])
    for name in ("as it is", "in use", "workers"):
        first, last = found[name]
        growth = last / first - 1
        words = f"{first / 2**20:.0f} MiB after {scale.warm} images, {last / 2**20:.0f} after {scale.images}"
        print(f"many, {name}: {words} ({growth:+.2%})")
        if name != "as it is":
            tally.check(growth < GROWTH, f"many, {name}", words)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--short", action="store_true", help="seconds instead of minutes")
    return trial(SHORT if parser.parse_args().short else FULL).finish()


if __name__ == "__main__":
    sys.exit(main())
