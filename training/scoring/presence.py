"""Whether a concept is there at all: ranking, false alarms, calibration. Statistics over weighted rows.

Every function takes weights (draws, rows) and gives (draws,), NaN where there is nothing to measure: the form that
`infra.statistics` draws intervals with. All weights 1 give the plain figure. Where a model's answer is no number, the
figure is none, in every draw: leaving that row out would flatter the model.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from infra.statistics import Statistic, ratio

Values: TypeAlias = NDArray[np.float64]

BINS = 15


def auroc(scores: ArrayLike, present: ArrayLike) -> Statistic:
    """Area under the ROC curve: how often what is there scores higher than what is not, a tie counting half.

    Hanley and McNeil 1982 (doi:10.1148/radiology.143.1.7063747): the Mann-Whitney statistic.
    """
    said, there = np.asarray(scores, dtype=np.float64), np.asarray(present, dtype=bool)
    order = np.argsort(said, kind="stable")
    known, ranked = np.isfinite(said).all(), said[order]
    first = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]]) if ranked.size else np.zeros(0, dtype=np.int64)

    def statistic(weights: Values) -> Values:
        if not said.size or not known:
            return np.full(len(weights), np.nan)
        ordered = weights[:, order]
        positive = np.add.reduceat(np.where(there[order], ordered, 0.0), first, axis=1)
        negative = np.add.reduceat(np.where(there[order], 0.0, ordered), first, axis=1)
        below = np.cumsum(negative, axis=1) - negative
        pairs = positive.sum(axis=1) * negative.sum(axis=1)
        return ratio((positive * (below + negative / 2)).sum(axis=1), pairs)

    return statistic


def share(of: ArrayLike, among: ArrayLike | None = None) -> Statistic:
    """Share of rows for which `of` holds (1 or True; NaN: nobody knows), among those for which `among` does."""
    hit = np.asarray(of, dtype=np.float64)
    asked = np.ones(hit.shape, dtype=bool) if among is None else np.asarray(among, dtype=bool)
    known = np.isfinite(hit[asked]).all()

    def statistic(weights: Values) -> Values:
        if not known:
            return np.full(len(weights), np.nan)
        return ratio(weights @ np.where(asked, hit, 0.0), weights @ asked.astype(np.float64))

    return statistic


def calibration_error(probability: ArrayLike, present: ArrayLike, bins: int = BINS) -> Statistic:
    """Expected calibration error over bins of equal width (`training.calibration`; Naeini et al. 2015, AAAI)."""
    said, was = np.asarray(probability, dtype=np.float64), np.asarray(present, dtype=np.float64)
    known = np.isfinite(said)
    place = np.minimum((np.where(known, said, 0.0) * bins).astype(int), bins - 1)
    apart = np.zeros((said.size, bins))
    apart[np.arange(said.size), place] = said - was

    def statistic(weights: Values) -> Values:
        if not known.all():
            return np.full(len(weights), np.nan)
        return ratio(np.abs(weights @ apart).sum(axis=1), weights.sum(axis=1))

    return statistic
