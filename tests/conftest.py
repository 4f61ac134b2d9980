"""What several tests share: where real data lies, and configs small enough for two cores."""

from __future__ import annotations

import importlib
import importlib.util
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import skimage
import torch
from detectron2.structures import BitMasks, Instances

import ddl_d2.modeling  # noqa: F401  registers the systems
from ddl_d2.data.datasets import load_config
from ddl_d2.errors import FaceFinderUnavailableError
from ddl_d2.faces.dlib_finder import DlibFaceFinder
from ddl_d2.faces.face import Face
from ddl_d2.faces.yunet_finder import YuNetFaceFinder
from ddl_d2.io.image import read_image, write_png

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
CONFIGS = sorted(p for p in (ROOT / "configs").rglob("*.yaml") if not p.name.startswith("Base-"))

# A shell's background job ignores Ctrl-C, and so would every process that a test starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A network of the same parts, two hundred times cheaper.
TINY = [
    "MODEL.DEVICE", "cpu",
    "MODEL.TIMM.PRETRAINED", "",
    "MODEL.SEM_SEG_HEAD.CONVS_DIM", "32",
    "MODEL.SEM_SEG_HEAD.MASK_DIM", "32",
    "MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS", "1",
    "MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_DIM_FEEDFORWARD", "32",
    "MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_NHEADS", "4",
    "MODEL.MASK_FORMER.HIDDEN_DIM", "32",
    "MODEL.MASK_FORMER.NHEADS", "4",
    "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES", "6",
    "MODEL.MASK_FORMER.DIM_FEEDFORWARD", "32",
    "MODEL.MASK_FORMER.DEC_LAYERS", "3",
    "MODEL.MASK_FORMER.TRAIN_NUM_POINTS", "64",
    "MODEL.SWIN_UNET.EMBED_DIM", "12",
    "MODEL.MESORCH.INPUT_SIZE", "64",
    "MODEL.MESORCH.GATE_CHANNELS", "8",
    "MODEL.MESORCH.LOCAL.NAME", "convnext_atto",
    "MODEL.MESORCH.LOCAL.PRETRAINED", "",
    "MODEL.MESORCH.GLOBAL.NAME", "mit_b0",
    "MODEL.MESORCH.GLOBAL.PRETRAINED", "",
    "MODEL.LFDL.INPUT_SIZE", "96",
    "MODEL.LFDL.FUSION_DIM", "8",
    "MODEL.LFDL.PIXEL_DIMS", "[8, 8]",
    "MODEL.LFDL.CLASS_DIMS", "[16, 16]",
    "MODEL.LOUPE.INPUT_SIZE", "64",
    "MODEL.LOUPE.MAP_SIZE", "64",
    "MODEL.SEGMENTOR.FUSE_DIM", "32",
    "MODEL.SEGMENTOR.AUXILIARY.CHANNELS", "16",
    "MODEL.MIX_TRANSFORMER.NAME", "mit_b0",
    "MODEL.MIX_TRANSFORMER.PRETRAINED", "",
    "MODEL.PLAIN_VIT.EMBED_DIM", "48",
    "MODEL.PLAIN_VIT.DEPTH", "2",
    "MODEL.PLAIN_VIT.NUM_HEADS", "3",
    "MODEL.PLAIN_VIT.WINDOW_SIZE", "3",
    "MODEL.PLAIN_VIT.GLOBAL_BLOCKS", "[1]",
    "MODEL.PLAIN_VIT.OUT_CHANNELS", "32",
    "MODEL.PLAIN_VIT.PRETRAINED", "",
    "MODEL.BATFD.VIDEO_ENCODER", "timm:tf_efficientnet_lite0",
    "MODEL.BATFD.AUDIO_ENCODER", "light",
    "MODEL.BATFD.FEATURE_DIM", "32",
    "MODEL.BATFD.NUM_FRAMES", "32",
    "MODEL.BATFD.DURATIONS", "1:8,12:32:4",
    "MODEL.BATFD.BOUNDARY_DIMS", "[16, 8]",
    "MODEL.UMMA.DIM", "16",
    "MODEL.UMMA.HEADS", "2",
    "INPUT.CLIP.SIZE", "32",
    "SOLVER.AMP.ENABLED", "False",
    "DATALOADER.NUM_WORKERS", "0",
]  # fmt: skip


def load_benchmark(name: str) -> ModuleType:
    """benchmarks/`name`.py as a module, with the other files of its folder beside it."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory) -> Iterator[None]:
    """Faces and indexes are remembered for this session only, and not among the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DDL_D2_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def rgb(rng) -> np.ndarray:
    """Random pixels, 5 x 9 x 3."""
    return rng.integers(0, 256, (5, 9, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def needs_dlib() -> None:
    """Skips where dlib or its landmark model is not installed."""
    try:
        DlibFaceFinder()
    except FaceFinderUnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and reference outputs beside the checkout; skips where there is none."""
    if not (SHARED / "reference").is_dir():
        pytest.skip("needs ../shared")
    return SHARED


@pytest.fixture(scope="session")
def batfd_reference(shared) -> ModuleType:
    """The functions that fill weights and make inputs for BA-TFD's reference outputs, and `folder`, where these are."""
    folder = shared / "reference" / "batfd"
    spec = importlib.util.spec_from_file_location("fill_weights_s5", folder / "fill_weights_s5.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.folder = folder
    return module


@pytest.fixture
def tiny_cfg():
    """`tiny_cfg(KEY, VALUE, ...)` -> a thawed config of the whole system on EfficientNet-Lite0, much reduced."""

    def build(*opts: str, config: str = "quickstart/mask2former_efficientnet_lite0.yaml"):
        cfg = load_config(ROOT / "configs" / config, [*TINY, *opts])
        cfg.defrost()
        if cfg.MODEL.BACKBONE.NAME == "build_perception_encoder_backbone":
            cfg.MODEL.TIMM.NAME = "vit_pe_core_tiny_patch16_384"
        return cfg

    return build


@pytest.fixture
def make_row():
    """`make_row(seed, fake, size)` -> a mapper row with random pixels and, if fake, one square of forged ones."""

    def build(seed: int = 0, fake: bool = True, size: tuple[int, int] = (64, 96), name: str | None = None) -> dict:
        rng = np.random.default_rng(seed)
        height, width = size
        mask = torch.zeros(1 if fake else 0, height, width, dtype=torch.bool)
        mask[:, height // 4 : height // 2, width // 4 : width // 2] = True
        instances = Instances(size, gt_classes=torch.zeros(len(mask), dtype=torch.int64), gt_masks=BitMasks(mask))
        return {
            "image": torch.from_numpy(rng.integers(0, 256, (3, height, width), dtype=np.uint8)),
            "is_fake": int(fake),
            "instances": instances,
            "forgery_mask": mask.any(0),
            "localization_valid": True,
            "height": height,
            "width": width,
            "image_id": name or f"{seed}.png",
            "file_name": f"{seed}.png",
        }

    return build


@pytest.fixture
def make_clip_row():
    """`make_clip_row(seed, fake=, frames=, size=, sound=)` -> a clip row; of a fake, one span is forged in both."""

    def build(
        seed: int = 0, *, fake: bool = True, frames: int = 20, size: int = 32, sound: bool = True, **changes: object
    ) -> dict:
        rng = np.random.default_rng(seed)
        segments = torch.tensor([[frames / 4, frames / 2]]) if fake else torch.zeros(0, 2)
        samples = rng.standard_normal(640 * frames).astype(np.float32) * (0.1 if sound else 0)
        return {
            "frames": torch.from_numpy(rng.integers(0, 256, (3, frames, size, size), dtype=np.uint8)),
            "audio": torch.from_numpy(samples),
            "num_frames": frames,
            "fps": 25.0,
            "duration": frames / 25,
            "has_audio": sound,
            "is_fake": int(fake),
            "segments": segments,
            "video_segments": segments,
            "audio_segments": segments,
            "image_id": f"{seed}.mp4",
            "video_id": f"{seed}.mp4",
            "file_name": f"{seed}.mp4",
        } | changes

    return build


@pytest.fixture(scope="session")
def tiny_set(tmp_path_factory) -> Path:
    """`make_tiny_set`, once."""
    return make_tiny_set(tmp_path_factory.mktemp("tiny_set"))


def make_tiny_set(root: Path, train: int = 4, valid: int = 3) -> Path:
    """DDL-I-shaped noise, 64 × 80: 4 + 4 images to train on, 3 + 3 to validate on. Fakes have a gray square."""
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("valid", valid)):
        for folder in ("real", "fake", "masks"):
            (root / split / folder).mkdir(parents=True)
        for i in range(count):
            for kind in ("real", "fake"):
                image = rng.integers(0, 256, (64, 80, 3), dtype=np.uint8)
                mask = np.zeros((64, 80), dtype=np.uint8)
                if kind == "fake":
                    mask[10 : 30 + i, 20:50] = 255
                    image[mask > 0] = 128
                    write_png(root / split / "masks" / f"{i}.png", mask)
                write_png(root / split / kind / f"{i}.png", image)
    return root


@pytest.fixture(scope="session")
def finder():
    try:
        return DlibFaceFinder()
    except FaceFinderUnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture
def yunet_model(shared):
    """A YuNet model; the project ships none."""
    found = sorted((shared / "data" / "models").glob("face_detection_yunet*.onnx"))
    return found[0] if found else pytest.skip("no YuNet model to test with")


@pytest.fixture
def yunet(finder, yunet_model):
    del finder  # its landmark model is there
    return YuNetFaceFinder(yunet_model)


@pytest.fixture(scope="session")
def astronaut():
    image = read_image(Path(skimage.__file__).parent / "data/astronaut.png", max_pixels=10**7)
    image.setflags(write=False)
    return image


@pytest.fixture(scope="session")
def astronaut_face(finder, astronaut):
    (face,) = finder(astronaut)
    return face


def synthetic_face(center=(100.0, 100.0), width=100.0):
    """68 points laid out like a face: a jaw of `width`, features inside."""
    t = np.linspace(np.pi, 0, 17)
    jaw = np.stack([np.cos(t) * 0.5, np.sin(t) * 0.65], axis=1)
    brows = np.array([(-0.4 + 0.07 * i, -0.15) for i in range(5)] + [(0.12 + 0.07 * i, -0.15) for i in range(5)])
    brows[[2, 7], 1] -= 0.03
    nose = np.array([(0, -0.05 + 0.07 * i) for i in range(4)] + [(-0.1 + 0.05 * i, 0.22) for i in range(5)])
    ring = np.linspace(np.pi, -np.pi, 6, endpoint=False)
    eyes = [np.stack([x + 0.1 * np.cos(ring), 0.04 * np.sin(-ring)], axis=1) for x in (-0.25, 0.25)]
    outer, inner = np.linspace(np.pi, -np.pi, 12, endpoint=False), np.linspace(np.pi, -np.pi, 8, endpoint=False)
    mouth = [np.stack([s * np.cos(a), 0.38 + 0.4 * s * np.sin(-a)], axis=1) for s, a in ((0.2, outer), (0.14, inner))]
    points = np.concatenate([jaw, brows, nose, *eyes, *mouth]) * width + np.array(center)
    (x0, y0), (x1, y1) = points.min(0), points.max(0)
    return Face((float(x0), float(y0), float(x1), float(y1)), points)


@pytest.fixture(name="synthetic_face")
def synthetic_face_fixture():
    return synthetic_face
