"""Making one prediction of several systems': weighted averages, the search of weights, fusion of masks.

Everything here works on arrays or on prediction stores; no model is needed.
"""

from ddl_d2.fusion.ensemble import average_maps, average_scores, check_weights
from ddl_d2.fusion.morphology import FUSION_MODES, fuse_masks
from ddl_d2.fusion.search import SearchResult, report_weights, search_weights, weight_grid
from ddl_d2.fusion.stores import AlignedStores, align_stores, read_maps
from ddl_d2.fusion.truth import LabeledPredictions, check_disjoint, label_predictions

__all__ = [
    "FUSION_MODES",
    "AlignedStores",
    "LabeledPredictions",
    "SearchResult",
    "align_stores",
    "average_maps",
    "average_scores",
    "check_disjoint",
    "check_weights",
    "fuse_masks",
    "label_predictions",
    "read_maps",
    "report_weights",
    "search_weights",
    "weight_grid",
]
