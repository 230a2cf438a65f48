"""Sets of instances: which prediction is which object, F1, panoptic quality, average precision.

For one concept of one picture. Objects and predictions are matched one to one, the pair with the largest IoU
first (AP: the prediction with the best score first); a pair counts as a match from an IoU above 0.5 (F1, PQ) or from
the threshold (AP). Empty cases: nothing there and nothing predicted adds nothing to any sum; predictions where nothing
is are false, objects without a prediction are missed; where a dataset has neither objects nor predictions there is no
figure (None).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from infra.statistics import Statistic, ratio

Mask = NDArray[np.bool_]
Values: TypeAlias = NDArray[np.float64]

IOUS = tuple(0.5 + step / 20 for step in range(10))
"""Thresholds that AP is the mean over (COCO)."""
RECALLS = np.linspace(0, 1, 101)
MATCH_IOU = 0.5
_SLACK = 1e-12


@dataclass(frozen=True)
class Crop:
    """A mask cut to its box: it starts at row `top` and column `left` of the picture."""

    top: int
    left: int
    mask: Mask

    @classmethod
    def of(cls, mask: Mask) -> Crop:
        """Cut a mask (height, width); an empty one has no pixel."""
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not rows.size:
            return cls(0, 0, mask[:0, :0])
        top, left = int(rows[0]), int(columns[0])
        return cls(top, left, mask[top : rows[-1] + 1, left : columns[-1] + 1].copy())


@dataclass(frozen=True)
class Matching:
    """What one picture says of one concept's instances."""

    truth: int  # objects
    predicted: int  # predictions that the model stands by
    matched: int  # of both, by an IoU above `MATCH_IOU`
    iou: float  # sum over the matched
    scores: list[float] = field(default_factory=list)  # of all predictions, also those that it does not stand by
    hits: list[int] = field(default_factory=list)  # of each: bit k where it is a match at `IOUS[k]`


def iou_matrix(truth: Sequence[Crop], predicted: Sequence[Crop]) -> Values:
    """(objects, predictions) intersection over union."""
    areas = [[int(one.mask.sum()) for one in each] for each in (truth, predicted)]
    found = np.zeros((len(truth), len(predicted)))
    for row, one in enumerate(truth):
        for column, other in enumerate(predicted):
            both = _shared(one, other)
            if both:
                found[row, column] = both / (areas[0][row] + areas[1][column] - both)
    return found


def match(ious: Values, scores: Sequence[float], sure: Sequence[bool]) -> Matching:
    """Match the predictions of one picture.

    Args:
        ious: (objects, predictions).
        scores: (predictions,).
        sure: (predictions,) whether the model stands by it (score above its instance threshold): F1 and PQ are of
            these alone, AP of all.
    """
    stands = np.flatnonzero(np.asarray(sure, dtype=bool))
    pairs = _by_overlap(ious[:, stands])
    kept = [value for value in pairs if value > MATCH_IOU + _SLACK]
    hits = [0] * len(scores)
    for bit, threshold in enumerate(IOUS):
        for number in _by_score(ious, scores, threshold):
            hits[number] |= 1 << bit
    return Matching(len(ious), len(stands), len(kept), float(sum(kept)), [float(one) for one in scores], hits)


def f1(found: Sequence[Matching]) -> Statistic:
    """F1 of instances over pictures: 2 TP / (objects + predictions)."""
    counts = np.array([[one.matched, one.truth, one.predicted] for one in found], dtype=np.float64).reshape(-1, 3)

    def statistic(weights: Values) -> Values:
        matched, truth, predicted = (weights @ counts).T
        return ratio(2 * matched, truth + predicted)

    return statistic


def panoptic_quality(found: Sequence[Matching]) -> Statistic:
    """Sum of matched IoU / (TP + FP / 2 + FN / 2) over pictures (Kirillov et al. 2019, arXiv:1801.00868)."""
    counts = np.array([[one.iou, one.truth, one.predicted] for one in found], dtype=np.float64).reshape(-1, 3)

    def statistic(weights: Values) -> Values:
        iou, truth, predicted = (weights @ counts).T
        return ratio(2 * iou, truth + predicted)

    return statistic


def average_precision(found: Sequence[Matching], thresholds: Sequence[float] = IOUS) -> Statistic:
    """COCO's AP: mean over IoU thresholds of the precision at 101 recalls, predictions of all pictures by score.

    Precision at a recall is the best one at that recall or beyond. 0 where there are objects and no prediction.
    """
    picture = np.repeat(np.arange(len(found)), [len(one.scores) for one in found])
    scores = np.array([score for one in found for score in one.scores])
    hits = np.array([hit for one in found for hit in one.hits], dtype=np.int64)
    order = np.argsort(-scores, kind="stable")
    objects = np.array([one.truth for one in found], dtype=np.float64)

    def statistic(weights: Values) -> Values:
        total = weights @ objects
        values = np.zeros((len(thresholds), len(weights)))
        each = weights[:, picture[order]]
        for place, threshold in enumerate(thresholds):
            hit = (hits[order] >> IOUS.index(threshold) & 1).astype(np.float64)
            values[place] = _interpolated(np.cumsum(each * hit, axis=1), np.cumsum(each, axis=1), total)
        result: Values = np.where(total > 0, values.mean(axis=0), np.nan)
        return result

    return statistic


def _interpolated(true: Values, predicted: Values, total: Values) -> Values:
    """Mean precision at `RECALLS`, a row a draw."""
    if not true.shape[1]:
        return np.zeros(len(total))
    precision = np.divide(true, predicted, out=np.zeros_like(true), where=predicted > 0)
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    means = np.zeros(len(total))
    for row in np.flatnonzero(total > 0):
        place = np.searchsorted(true[row] / total[row], RECALLS - _SLACK, side="left")
        means[row] = np.where(place < true.shape[1], precision[row, np.minimum(place, true.shape[1] - 1)], 0.0).mean()
    return means


def _by_overlap(ious: Values) -> list[float]:
    """IoU of pairs, each object and prediction once, largest first."""
    left = ious.copy()
    found: list[float] = []
    while left.size and left.max() > 0:
        row, column = np.unravel_index(int(left.argmax()), left.shape)
        found.append(float(left[row, column]))
        left[row], left[:, column] = 0, 0
    return found


def _by_score(ious: Values, scores: Sequence[float], threshold: float) -> list[int]:
    """Predictions that are matches at a threshold: by score, each takes the object it fits best that is free."""
    free = np.ones(len(ious), dtype=bool)
    found: list[int] = []
    for number in np.argsort(-np.asarray(scores, dtype=np.float64), kind="stable").tolist():
        fits = np.where(free, ious[:, number], -1.0)
        if fits.size and fits.max() >= threshold - _SLACK:
            free[int(fits.argmax())] = False
            found.append(number)
    return found


def _shared(one: Crop, other: Crop) -> int:
    top, left = max(one.top, other.top), max(one.left, other.left)
    bottom = min(one.top + one.mask.shape[0], other.top + other.mask.shape[0])
    right = min(one.left + one.mask.shape[1], other.left + other.mask.shape[1])
    if top >= bottom or left >= right:
        return 0
    parts = [
        each.mask[top - each.top : bottom - each.top, left - each.left : right - each.left] for each in (one, other)
    ]
    return int(np.count_nonzero(parts[0] & parts[1]))
