"""Confidence intervals by bootstrap over groups (Efron and Tibshirani 1993, chapter 13: percentile interval).

What is drawn again is the group (patient, video, slide), never the sample: slices of one patient say the same thing
many times. A figure over several datasets draws groups within each and takes the mean of the datasets, so that each
counts once. Draws depend on a name alone, so that the same rows give the same bytes, whatever else is measured.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Values = NDArray[np.float64]
Statistic = Callable[[Values], Values]
"""Weights (draws, rows) of each row to the figure (draws,); NaN where a draw holds nothing to measure."""

DRAWS = 1000
"""Bootstrap samples of an interval."""
LEAST_GROUPS = 2
_MOST_WEIGHTS = 1 << 22  # of a chunk of draws: 32 MiB


def draws_of(groups: int, name: str, wide: int = 0) -> Iterator[Values]:
    """How often each group is drawn, (some draws, groups), `DRAWS` draws in all.

    Args:
        groups: their number.
        name: what the draws depend on.
        wide: rows that the caller spreads the weights over; bounds the memory of a chunk.
    """
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    chance = np.random.default_rng(seed)
    share = np.full(groups, 1 / groups)
    at_once = max(1, _MOST_WEIGHTS // max(groups, wide, 1))
    for first in range(0, DRAWS, at_once):
        yield chance.multinomial(groups, share, size=min(at_once, DRAWS - first)).astype(np.float64)


def replicates(groups: Sequence[str], statistic: Statistic, name: str, wide: int = 0) -> Values:
    """The figure of each draw, (DRAWS,), of rows that belong to `groups` (a name a row); NaN without enough groups.

    `wide` is how many columns `statistic` spreads the weights over, where that is more than there are rows.
    """
    names, place = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)
    if names.size < LEAST_GROUPS:
        return np.full(DRAWS, np.nan)
    chunks = [statistic(weights[:, place]) for weights in draws_of(names.size, name, max(place.size, wide))]
    return np.concatenate(chunks)


def mean_replicates(groups: Sequence[str], values: ArrayLike, name: str) -> Values:
    """`replicates` of the mean of `values` (rows,), by sums over groups: rows by the million cost no memory.

    Several columns (rows, figures) are drawn together, to (DRAWS, figures).
    """
    names, place = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)
    known = np.asarray(values, dtype=np.float64)
    if names.size < LEAST_GROUPS:
        return np.full((DRAWS, *known.shape[1:]), np.nan)
    sums = np.zeros((names.size, *known.shape[1:]))
    np.add.at(sums, place, known)
    counts = np.bincount(place, minlength=names.size).astype(np.float64)
    return np.concatenate([((each @ sums).T / (each @ counts)).T for each in draws_of(names.size, name)])


def over_strata(parts: Sequence[tuple[float | Values, Values]]) -> Values:
    """Draws of a mean over strata (datasets), each with its figure and its draws.

    A stratum that cannot be drawn from stands with its figure: of one patient nothing is known about others. So does
    a stratum in the single draws that hold nothing to measure in it; the mean is then of the same strata in every
    draw, and its interval a little narrower than it should be. NaN throughout where no stratum can be drawn from.
    """
    drawn = [values for _, values in parts if not np.isnan(values).all()]
    if not drawn:
        return np.full(DRAWS, np.nan)
    columns = [np.where(np.isnan(values), figure, values) for figure, values in parts]
    result: Values = np.mean(columns, axis=0)
    return result


def interval(draws: Values) -> list[float] | None:
    """[low, high] that holds 95 % of the draws; None where there are none."""
    known = draws[~np.isnan(draws)]
    if not known.size:
        return None
    low, high = np.percentile(known, [2.5, 97.5])
    return [float(low), float(high)]


def ratio(above: Values, below: Values) -> Values:
    """Element by element; NaN where there is nothing to divide by."""
    result: Values = np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)
    return result


def whole(statistic: Statistic, rows: int) -> float | None:
    """The figure itself: every row once. None where there is nothing to measure."""
    value = float(statistic(np.ones((1, rows)))[0]) if rows else float("nan")
    return None if np.isnan(value) else value
