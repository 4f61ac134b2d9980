"""Metrics as pure functions of NumPy arrays: no files, no state, no Detectron2. Protocols: docs/metrics.md."""

from ddl_d2.evaluation.functional.detection import (
    UndefinedMetricWarning,
    accuracy,
    average_precision,
    equal_error_rate,
    roc_auc,
)
from ddl_d2.evaluation.functional.localization import (
    EMPTY_SCORES,
    double_f1_per_image,
    f1_iou_per_image,
    final_score,
    localization_metrics,
    pixel_counts,
)
from ddl_d2.evaluation.functional.video import (
    NO_FACE_SCORE,
    VIDEO_SCORES,
    score_with_faces,
    scores_of_videos,
    video_score,
)
from ddl_d2.predictions.maps import binarize_map, quantize_map

__all__ = [
    "EMPTY_SCORES",
    "NO_FACE_SCORE",
    "VIDEO_SCORES",
    "UndefinedMetricWarning",
    "accuracy",
    "average_precision",
    "binarize_map",
    "double_f1_per_image",
    "equal_error_rate",
    "f1_iou_per_image",
    "final_score",
    "localization_metrics",
    "pixel_counts",
    "quantize_map",
    "roc_auc",
    "score_with_faces",
    "scores_of_videos",
    "video_score",
]
