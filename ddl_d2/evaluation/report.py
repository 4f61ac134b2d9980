"""Metrics as a file for programs and as a table for people."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from typing import Any

from tabulate import tabulate

from ddl_d2.io.atomic import write_whole

_TITLES = {
    "auc": "ROC AUC, all images",
    "f1": "F1, mean over fakes (M1)",
    "iou": "IoU, mean over fakes (M1)",
    "final": "(AUC + F1 + IoU) / 3",
    "pooled_f1": "F1, pixels of fakes pooled (M2)",
    "pooled_iou": "IoU, pixels of fakes pooled (M2)",
    "miou": "two-class mIoU, fakes pooled (M3)",
    "all_f1": "F1, pixels of all images pooled (M4)",
    "all_iou": "IoU, pixels of all images pooled (M4)",
    "accuracy": "image accuracy",
    "eer": "equal error rate",
    "ap": "average precision",
    "video_auc": "ROC AUC, all videos",
    "video_accuracy": "video accuracy",
    "video_eer": "equal error rate, videos",
    "video_ap": "average precision, videos",
    "num_videos": "videos",
    "num_frames_without_face": "frames without a face, left out of their videos",
    "num_videos_without_face": "videos without a face, scored 0.5",
    "AUC": "ROC AUC, all clips",
    "DDL-AV": "DDL-AV's score: detection and localization",
    "num_clips": "clips",
    "num_images": "images",
    "num_in_dataset": "images of the dataset, of which these are a part",
    "num_fake": "fake images",
    "num_real": "real images",
    "num_localized": "fakes averaged in M1",
    "num_fake_without_mask": "fakes without a forgery mask",
    "num_empty_masks": "fakes with an empty forgery mask",
    "num_resized_masks": "forgery masks of another size",
}
_TITLES_OF_TYPES = {
    "auc": "ROC AUC, {} against all real images",
    "video_auc": "ROC AUC, {} against all real videos",
    "num_fake": "fake images by {}",
}

_TITLES_OF_SEGMENTS = {
    "AP@": "average precision of segments, overlap above {}",
    "AR@": "average recall of the first {} segments",
}


def write_metrics(path: str | os.PathLike[str], metrics: Mapping[str, Any]) -> None:
    """Write metrics as JSON with sorted keys, NaN as null; equal metrics give equal bytes.

    The file appears whole or not at all; missing folders are made.

    Raises:
        OSError: the file cannot be written.
    """
    plain = {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in metrics.items()}
    text = json.dumps(plain, indent=2, sort_keys=True, allow_nan=False) + "\n"
    write_whole(path, text, durable=True)


def metrics_table(metrics: Mapping[str, Any]) -> str:
    """Format metrics as a table to read: fractions with four digits, counts as they are, `n/a` for NaN."""
    rows = [(key, _cell(value), metric_title(key)) for key, value in metrics.items()]
    columns = ("left", "right", "left")
    return tabulate(rows, headers=("metric", "value", "meaning"), colalign=columns, disable_numparse=True)


def change_table(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Format the fractions among two evaluations' metrics as a table to read, with their difference."""
    rows = [
        (key, _cell(before[key]), _cell(value), f"{value - before[key]:+.4f}", metric_title(key))
        for key, value in after.items()
        if isinstance(value, float) and isinstance(before.get(key), float)
    ]
    headers = ("metric", "before", "after", "change", "meaning")
    return tabulate(rows, headers=headers, colalign=("left", "right", "right", "right", "left"), disable_numparse=True)


def metric_title(key: str) -> str:
    """What a metric means, also one of a single forgery type, such as `video_auc_Deepfakes`; "" for another."""
    if key in _TITLES:
        return _TITLES[key]
    subset, _, measure = key.rpartition("/")
    for name, title in _TITLES_OF_SEGMENTS.items():
        if measure.startswith(name):
            where = {
                "visual": ", without clips forged in sound only",
                "audio": ", without those forged in picture only",
            }
            return title.format(measure.removeprefix(name)) + where.get(subset, "")
    for name, title in _TITLES_OF_TYPES.items():
        if key.startswith(f"{name}_"):
            return title.format(key.removeprefix(f"{name}_"))
    return ""


def _cell(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return "n/a" if math.isnan(value) else f"{value:.4f}"
