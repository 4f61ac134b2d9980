"""The metrics of a result table over resamples of its images.

Legend: N images, U units that are drawn together (an image, a video, or a group such as a person), C resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddl_d2.errors import EvaluationError
from ddl_d2.evaluation.errors import listed
from ddl_d2.evaluation.functional import final_score, scores_of_videos
from ddl_d2.evaluation.functional.resampled import Floats, ResampledDetection, ResampledLocalization
from ddl_d2.evaluation.results import ImageResult


class Units(NamedTuple):
    """What a resample draws.

    Attributes:
        kind: "images", "videos" or "groups".
        of_image: (N,) the index of each image's unit, 0..U-1.
        total: U.
    """

    kind: str
    of_image: NDArray[np.int64]
    total: int


def units_of(rows: Sequence[ImageResult], groups: Mapping[str, str] | None = None) -> Units:
    """Decide what is drawn: the groups if they are given, else whole videos if the images are frames, else images.

    Args:
        rows: the images.
        groups: the group of each `image_id`; others may be named, too.

    Raises:
        EvaluationError: an image has no group, or the frames of a video are in several groups.
    """
    if groups is None:
        kind = "images" if rows[0].video_id is None else "videos"
        names = [row.image_id if row.video_id is None else row.video_id for row in rows]
    else:
        if missing := [row.image_id for row in rows if row.image_id not in groups]:
            raise EvaluationError(f"{len(missing)} of {len(rows)} images have no group: {listed(missing)}")
        kind, names = "groups", [groups[row.image_id] for row in rows]
        group_of_video: dict[str, str] = {}
        for row, name in zip(rows, names, strict=True):
            if row.video_id is not None and group_of_video.setdefault(row.video_id, name) != name:
                raise EvaluationError(
                    f"video {row.video_id} is in the groups {group_of_video[row.video_id]} and {name}: "
                    "all frames of a video belong in one"
                )
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return Units(kind, np.array([numbers[name] for name in names], dtype=np.int64), len(numbers))


class Ranking(NamedTuple):
    """Images or videos that are ranked by their scores.

    Attributes:
        prefix: of its metrics' names: "" of images, "video_" of videos.
        suffix: likewise: "" of all, "_Deepfakes" of all reals and the fakes of that type, which have only an AUC.
        labels: (K,) 0 real, 1 fake.
        scores: (K,) P(fake).
        units: (K,) index of the unit that each belongs to.
        subsets: (K,) for the name of each further AUC, which fakes it is of, against all reals.
    """

    prefix: str
    suffix: str
    labels: NDArray[np.int64]
    scores: Floats
    units: NDArray[np.int64]
    subsets: Mapping[str, NDArray[np.bool_]] = {}

    @property
    def independent(self) -> bool:
        """Whether no two of them are drawn together."""
        return len(np.unique(self.units)) == len(self.units)

    def aucs(self) -> dict[str, NDArray[np.bool_]]:
        """Tell of each AUC, by its name, which of the K it ranks (K,)."""
        real = self.labels == 0
        ranked = {name: real | mask for name, mask in self.subsets.items()}
        return {f"{self.prefix}auc{self.suffix}": np.ones(len(real), bool), **ranked}


def rankings_of(rows: Sequence[ImageResult], units: Units, video_score: str = "mean") -> list[Ranking]:
    """List the rankings behind all AUCs of `ResultTable.metrics`: of images, of videos, and of each forgery type.

    Args:
        rows: the images, all with a label; none or all with a score, none or all with a video.
        units: of them.
        video_score: as in `functional.video_score`.

    Returns:
        The images first; nothing if there are no scores.
    """
    if rows[0].score is None:
        return []
    labels = np.array([row.is_fake for row in rows], dtype=np.int64)
    scores = np.array([row.score for row in rows], dtype=np.float64)
    kinds = np.array([(row.forgery_type or "") if row.is_fake else "" for row in rows])
    names = sorted(set(kinds.tolist()) - {""})
    found = [Ranking("", "", labels, scores, units.of_image, {f"auc_{name}": kinds == name for name in names})]
    if rows[0].video_id is not None:
        found.append(_of_videos(found[0], rows, np.arange(len(rows)), "", video_score))
        # Frames of one video may be of several types, so that a type's videos have scores of their own.
        for name in names:
            chosen = np.flatnonzero((labels == 0) | (kinds == name))
            found.append(_of_videos(found[0], rows, chosen, f"_{name}", video_score))
    return found


def _of_videos(
    images: Ranking, rows: Sequence[ImageResult], chosen: NDArray[np.int64], suffix: str, video_score: str
) -> Ranking:
    """The ranking of the videos of the chosen images."""
    videos = [str(rows[index].video_id) for index in chosen]
    faces = [rows[index].has_face for index in chosen]
    ids, labels, scores = scores_of_videos(
        videos, images.labels[chosen], images.scores[chosen], video_score, has_face=faces
    )
    unit_of = dict(zip(videos, images.units[chosen].tolist(), strict=True))
    units = np.array([unit_of[video] for video in ids], dtype=np.int64)
    return Ranking("video_", suffix, labels, scores, units)


class ResampledMetrics:
    """All metrics of one table, over any number of resamples; counts such as `num_fake` are not among them."""

    def __init__(
        self,
        rows: Sequence[ImageResult],
        units: Units,
        rankings: Sequence[Ranking],
        *,
        threshold: float = 0.5,
        empty_score: str = "skip",
    ) -> None:
        """Prepare for many resamples.

        Args:
            rows: the images, sorted, as `ResultTable.distinct` gives them and `ResultTable.metrics` accepts.
            units: of them.
            rankings: of them.
            threshold: as in `ResultTable.metrics`.
            empty_score: likewise.
        """
        self._detection = [
            (one, ResampledDetection(one.labels, one.scores, one.units, threshold=threshold, subsets=one.subsets))
            for one in rankings
        ]
        self._localization = None
        if any(row.counts is not None for row in rows):
            self._localization = ResampledLocalization(
                np.array([row.counts or (0, 0, 0, 0) for row in rows], dtype=np.int64),
                np.array([row.is_fake for row in rows], dtype=np.int64),
                units.of_image,
                has_mask=np.array([row.counts is not None for row in rows]),
                empty_score=empty_score,
            )

    def all(self, counts: Floats) -> dict[str, Floats]:
        """Compute them for some resamples.

        Args:
            counts: (C, U) how often each unit was drawn.

        Returns:
            (C,) for each metric, under its name; NaN where it is undefined.
        """
        values: dict[str, Floats] = {}
        for ranking, detection in self._detection:
            metrics = detection.all(counts)
            values.update((name, metrics.pop(name)) for name in ranking.subsets)
            kept = ("auc",) if ranking.suffix else tuple(metrics)
            values.update((f"{ranking.prefix}{key}{ranking.suffix}", metrics[key]) for key in kept)
        if self._localization is not None:
            values |= self._localization.all(counts)
        if "auc" in values and "f1" in values:
            values["final"] = np.asarray(final_score(values["auc"], values["f1"], values["iou"]))  # type: ignore[arg-type]
        return values
