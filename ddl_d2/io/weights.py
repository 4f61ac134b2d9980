"""Reading weights that come from outside, without running what they contain.

`.safetensors` and `.pth` go through loaders that execute nothing (torch's `weights_only`). `.pkl`, the format of
Detectron2's model zoo, is a pickle and could run code: it is read through an unpickler that knows NumPy arrays, torch
tensors and plain containers, and refuses every other name.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ddl_d2.errors import CheckpointError


def _storage_from_bytes(data: bytes) -> Any:
    return torch.load(io.BytesIO(data), weights_only=True)


# What a zoo pickle needs, and all it may name.
_PICKLE_GLOBALS = {
    ("numpy.core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,  # type: ignore[attr-defined]
    ("numpy._core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,  # type: ignore[attr-defined]
    ("numpy.core.multiarray", "scalar"): np._core.multiarray.scalar,  # type: ignore[attr-defined]
    ("numpy._core.multiarray", "scalar"): np._core.multiarray.scalar,  # type: ignore[attr-defined]
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
    ("torch.storage", "_load_from_bytes"): _storage_from_bytes,
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _PICKLE_GLOBALS[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which weights do not need") from None

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it refers to objects outside the file")


def load_checkpoint_file(path: str | Path) -> dict[str, Any]:
    """Read everything in a checkpoint file, as Detectron2 lays it out.

    Returns:
        `{"model": {key: Tensor}, ...}`, also for a file that holds a bare state dict. The NumPy arrays of zoo pickles
        (`.pkl`) become tensors.

    Raises:
        CheckpointError: names the file and what is wrong with it.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such weights file")
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
        elif path.suffix == ".pkl":
            content = _read_pickle(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        reason = str(error).split("\n")[0][:300]
        raise CheckpointError(f"{path}: not a readable weights file ({reason})") from error
    except (AttributeError, ImportError, IndexError, TypeError) as error:
        # What a damaged pickle stream makes of its opcodes.
        raise CheckpointError(f"{path}: damaged weights file ({type(error).__name__})") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, not a dict of tensors")
    return _with_model_key(path, content)


def predicting_weights(content: dict[str, Any]) -> dict[str, Tensor]:
    """The weights of a checkpoint that its training evaluated: the average where SOLVER.EMA made one, else `model`."""
    ema = content.get("ema")
    return (ema.get("weights") if isinstance(ema, dict) else None) or content["model"]


def load_tensors(path: str | Path) -> dict[str, Tensor]:
    """Read the model's state dict in a checkpoint file. Raises as `load_checkpoint_file`."""
    return load_checkpoint_file(path)["model"]


def _read_pickle(path: Path) -> Any:
    # latin1: the zoo's older files were pickled by Python 2.
    return _ArrayUnpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()


def _with_model_key(path: Path, content: dict[str, Any]) -> dict[str, Any]:
    for key in ("model", "state_dict", "model_state"):
        if isinstance(content.get(key), dict):
            content = {**content, "model": content[key]}
            break
    else:
        content = {"model": content}
    tensors = {k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in content["model"].items()}
    strangers = [k for k, v in tensors.items() if not isinstance(v, Tensor)]
    if strangers:
        raise CheckpointError(
            f"{path}: entry '{strangers[0]}' is a {type(tensors[strangers[0]]).__name__}, not a tensor"
        )
    return {**content, "model": tensors}
