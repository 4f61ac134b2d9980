"""IMDL-BenCo's pixel metrics, by its own classes or by its arithmetic: for benchmarks/benchmark_eval.py."""

from __future__ import annotations

import torch


class BencoArithmetic:
    """What IMDL-BenCo's PixelF1, PixelIOU and PixelAUC compute for a batch of one, written anew from its formulas."""

    name = "IMDL-BenCo's arithmetic"

    def f1_iou(self, forgery_map: torch.Tensor, mask: torch.Tensor) -> tuple[float, float]:
        """1 x 1 x H x W float tensors: probabilities, and 0 or 1."""
        found = (forgery_map > 0.5).float()
        both = (1, 2, 3)
        hit = (found * mask).sum(dim=both)
        ((1 - found) * (1 - mask)).sum(dim=both)  # it counts the true negatives as well
        false_alarm = (found * (1 - mask)).sum(dim=both)
        missed = ((1 - found) * mask).sum(dim=both)
        precision, recall = hit / (hit + false_alarm + 1e-8), hit / (hit + missed + 1e-8)
        f1 = 2 * precision * recall / (precision + recall + 1e-8)
        again, truth = (forgery_map > 0.5).float().flatten(1), mask.flatten(1)
        overlap = (again * truth).sum(dim=1)
        iou = overlap / (again.sum(dim=1) + truth.sum(dim=1) - overlap + 1e-8)
        return float(f1), float(iou)

    def auc(self, forgery_map: torch.Tensor, mask: torch.Tensor) -> float:
        """As for `f1_iou`. Ties count as they happen to be sorted."""
        order = torch.argsort(forgery_map.flatten(), descending=True)
        truth = mask.flatten()[order]
        forged = truth.sum().item()
        recall = torch.cumsum(truth, dim=0) / forged
        fall_out = torch.cumsum(1 - truth, dim=0) / (len(truth) - forged)
        return torch.trapz(recall, fall_out).item()


class Benco(BencoArithmetic):
    """IMDL-BenCo's own classes. Raises ImportError without the package."""

    name = "IMDL-BenCo"

    def __init__(self) -> None:
        from IMDLBenCo.evaluation import PixelAUC, PixelF1, PixelIOU

        self._f1, self._iou, self._auc = PixelF1(), PixelIOU(), PixelAUC()

    def f1_iou(self, forgery_map: torch.Tensor, mask: torch.Tensor) -> tuple[float, float]:
        f1, iou = self._f1.batch_update(forgery_map, mask), self._iou.batch_update(forgery_map, mask)
        return float(f1), float(iou)

    def auc(self, forgery_map: torch.Tensor, mask: torch.Tensor) -> float:
        return float(self._auc.batch_update(forgery_map, mask))


def find_benco() -> BencoArithmetic:
    """The package's classes if it can be imported."""
    try:
        return Benco()
    except ImportError:
        return BencoArithmetic()
