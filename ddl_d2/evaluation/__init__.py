"""Metrics: pure functions (`functional`), the table they are computed from, and a thin Detectron2 evaluator over it."""

from ddl_d2.evaluation.clip_results import ClipMetricOptions, ClipResult, ClipTable
from ddl_d2.evaluation.compared import SystemComparison
from ddl_d2.evaluation.comparison import compare_tables
from ddl_d2.evaluation.errors import IncompleteEvaluationError
from ddl_d2.evaluation.forgery_evaluator import ForgeryEvaluator
from ddl_d2.evaluation.from_store import clip_table_from_store, table_from_store
from ddl_d2.evaluation.report import metrics_table, write_metrics
from ddl_d2.evaluation.results import METRIC_NAMES, PER_TYPE_METRIC_NAMES, VIDEO_METRIC_NAMES, ImageResult, ResultTable
from ddl_d2.evaluation.temporal_evaluator import TemporalForgeryEvaluator

__all__ = [
    "METRIC_NAMES",
    "PER_TYPE_METRIC_NAMES",
    "VIDEO_METRIC_NAMES",
    "ClipMetricOptions",
    "ClipResult",
    "ClipTable",
    "ForgeryEvaluator",
    "ImageResult",
    "IncompleteEvaluationError",
    "ResultTable",
    "SystemComparison",
    "TemporalForgeryEvaluator",
    "clip_table_from_store",
    "compare_tables",
    "metrics_table",
    "table_from_store",
    "write_metrics",
]
