"""Small clip models and clips that several tests share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from detectron2.modeling import build_model

from ddl_d2.data.datasets import load_config
from tests.conftest import ROOT

TINY_CLIP = [
    "MODEL.DEVICE", "cpu",
    "MODEL.TIMM.PRETRAINED", "",
    "MODEL.BATFD.VIDEO_ENCODER", "mvit_t",
    "MODEL.BATFD.AUDIO_ENCODER", "vit_t",
    "MODEL.BATFD.NUM_FRAMES", "32",
    "MODEL.BATFD.DURATIONS", "1:8",
]  # fmt: skip


def clip_model(*opts: str, config: str = "lav_df/batfd_plus.yaml"):
    """A small clip model on the CPU, in eval mode."""
    torch.manual_seed(0)
    return build_model(load_config(ROOT / "configs" / config, [*TINY_CLIP, *opts])).eval()


def make_clip_row(
    seed: int = 0, *, fake: bool = True, frames: int = 20, size: int = 96, sound: bool = True, **changes: Any
) -> dict[str, Any]:
    """A clip mapper's row with random frames and sound and, if fake, one forged span in both."""
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
