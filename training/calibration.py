"""Presence made to mean what it says: of concepts called present with 0.8, eight in ten should be there.

Platt scaling (Platt 1999, "Probabilistic outputs for support vector machines"): the presence logit is stretched
and moved, its order stays. With two numbers from a validation split, there is little to learn by heart.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Values = NDArray[np.float64]
_BINS = 15
_ROUNDS = 100
_ENOUGH = 1e-10


def platt(logits: ArrayLike, present: ArrayLike, weights: ArrayLike | None = None) -> tuple[float, float]:
    """Scale and shift of the logit that make weighted cross-entropy smallest, by Newton's method.

    Platt's targets stand a little off 0 and 1, as if one more of each kind had been seen: perfectly parted data do
    not ask for an infinite scale.

    Args:
        logits: (pairs,) presence logits.
        present: (pairs,) bool.
        weights: (pairs,), all 1 by default.

    Returns:
        (1, 0), no change, where only one kind was seen or the logits point the wrong way: a calibration keeps order.
    """
    x, there = np.asarray(logits, dtype=np.float64), np.asarray(present, dtype=bool)
    weight = np.ones_like(x) if weights is None else np.asarray(weights, dtype=np.float64)
    seen = int(there.sum())
    if seen in (0, there.size):
        return 1.0, 0.0
    target = np.where(there, (seen + 1) / (seen + 2), 1 / (there.size - seen + 2))
    found = np.array([1.0, 0.0])
    columns = np.stack([x, np.ones_like(x)], axis=1)
    cost = _cross_entropy(columns @ found, target, weight)
    for _ in range(_ROUNDS):
        probability = _sigmoid(columns @ found)
        slope = columns.T @ (weight * (probability - target))
        curve = (columns * (weight * probability * (1 - probability))[:, None]).T @ columns + 1e-9 * np.eye(2)
        step, share = np.linalg.solve(curve, slope), 1.0
        while share > _ENOUGH:
            tried = found - share * step
            new = _cross_entropy(columns @ tried, target, weight)
            if new < cost:
                break
            share /= 2
        else:
            break
        done = cost - new < _ENOUGH * abs(cost)
        found, cost = tried, new
        if done:
            break
    if found[0] <= 0:
        return 1.0, 0.0
    return float(found[0]), float(found[1])


def expected_calibration_error(
    probability: ArrayLike, present: ArrayLike, weights: ArrayLike | None = None, bins: int = _BINS
) -> float:
    """Mean distance of what was said and what was, over bins of equal width (Naeini et al. 2015, AAAI).

    Args:
        probability: (pairs,) that the concept is there.
        present: (pairs,) bool.
        weights: (pairs,), all 1 by default.
        bins: number of bins of 0 to 1.

    Returns:
        NaN where a probability is no number.
    """
    said, was = np.asarray(probability, dtype=np.float64), np.asarray(present, dtype=np.float64)
    weight = np.ones_like(said) if weights is None else np.asarray(weights, dtype=np.float64)
    if not np.isfinite(said).all():
        return float("nan")
    place = np.minimum((said * bins).astype(int), bins - 1)
    apart = np.bincount(place, weight * (said - was), bins)
    return float(np.abs(apart).sum() / weight.sum())


def _sigmoid(x: Values) -> Values:
    result: Values = 0.5 * (1 + np.tanh(x / 2))
    return result


def _cross_entropy(logits: Values, target: Values, weight: Values) -> float:
    return float((weight * (np.logaddexp(0, logits) - target * logits)).sum())
