"""Dice by the size of what is to be found: small objects are where models fail first."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from registry.report.evaluation import AFTER, BEFORE
from registry.report.pairs import Pairs

EDGES_PX = (100, 1_000, 10_000, 100_000)


def size_rows(pairs: dict[str, Pairs], datasets: Collection[str]) -> list[dict[str, Any]]:
    """A row a class of size over the present pairs of `datasets`, sizes without a pair left out.

    Returns:
        `label`, `least` (pixels of the truth, all objects of the concept in the image together), `pairs`, mean Dice
        `before` (None where that model was not asked) and `after`, and the quartiles of `after`: `low`, `median`,
        `high`.
    """
    after, before = (_present(pairs, name, datasets) for name in (AFTER, BEFORE))
    if after is None or not len(after):
        return []
    places = np.digitize(after.truth_px, EDGES_PX)
    earlier = None if before is None else np.digitize(before.truth_px, EDGES_PX)
    rows = []
    for place in range(len(EDGES_PX) + 1):
        dice = after.dice[places == place]
        if not len(dice):
            continue
        was = [] if before is None or earlier is None else before.dice[earlier == place]
        low, median, high = (float(value) for value in np.quantile(dice, (0.25, 0.5, 0.75)))
        rows.append(
            {
                "label": _label(place),
                "least": (0, *EDGES_PX)[place],
                "pairs": len(dice),
                "before": float(np.mean(was)) if len(was) else None,
                "after": float(np.mean(dice)),
                "low": low,
                "median": median,
                "high": high,
            }
        )
    return rows


def _present(pairs: dict[str, Pairs], model: str, datasets: Collection[str]) -> Pairs | None:
    if model not in pairs:
        return None
    own = pairs[model].of(datasets)
    return own.where(own.present)


def _label(place: int) -> str:
    if place == 0:
        return f"below {EDGES_PX[0]:,} px"
    if place == len(EDGES_PX):
        return f"{EDGES_PX[-1]:,} px and more"
    return f"{EDGES_PX[place - 1]:,} to {EDGES_PX[place] - 1:,} px"
