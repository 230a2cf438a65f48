"""Failures by reason. Every pair has one reason or none; what each means is said on the page in the same words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from registry.report.pairs import AFTER, BEFORE, Pairs

POOR_DICE = 0.5  # below it an outline that touches the truth counts as failed
SIZE_FACTOR = 1.5  # an outline so many times larger or smaller than the truth is over- or under-segmented
MISSED, EMPTY, ELSEWHERE, UNDER, OVER, LOOSE, ALARM = REASONS = (
    "Missed",
    "Nothing outlined",
    "Wrong place",
    "Under-segmented",
    "Over-segmented",
    "Poor overlap",
    "False alarm",
)
MEANINGS = {
    MISSED: "The concept is there and its presence is below the threshold of {threshold}: the model says it is absent.",
    EMPTY: "The concept is there and called present, but no pixel is outlined.",
    ELSEWHERE: "The outline does not touch the truth at all (IoU 0).",
    UNDER: f"Dice below {POOR_DICE}, and the outline has less than 1/{SIZE_FACTOR} of the truth's area.",
    OVER: f"Dice below {POOR_DICE}, and the outline has more than {SIZE_FACTOR} times the truth's area.",
    LOOSE: f"Dice below {POOR_DICE} at about the right size: the outline is shifted or has the wrong shape.",
    ALARM: "The image was searched and the concept is not there, yet something is outlined.",
}
_MOST_NAMED = 3


def reasons_of(pairs: Pairs, presence_threshold: float) -> NDArray[Any]:
    """(pairs,) place of each pair's reason in `REASONS`, -1 where it did not fail.

    The first reason that holds counts, in the order of `REASONS`.
    """
    ratio = pairs.predicted_px / np.maximum(pairs.truth_px, 1)
    poor = pairs.dice < POOR_DICE
    holds = [
        pairs.present & (pairs.presence < presence_threshold),
        pairs.present & (pairs.predicted_px == 0),
        pairs.present & (pairs.iou == 0),
        pairs.present & poor & (ratio < 1 / SIZE_FACTOR),
        pairs.present & poor & (ratio > SIZE_FACTOR),
        pairs.present & poor,
        ~pairs.present & (pairs.predicted_px > 0),
    ]
    return np.select(holds, range(len(REASONS)), default=-1)


def failure_rows(pairs: dict[str, Pairs], datasets: Collection[str], presence_threshold: float) -> list[dict[str, Any]]:
    """A row a reason over the pairs of `datasets`; none where nothing was measured.

    Returns:
        `reason`, `meaning`, `after` and `before` (counts; None where that model was not asked), `of` (how many pairs
        could fail so), `share`, and `where`: the datasets with most of them.
    """
    after, before = (pairs[name].of(datasets) if name in pairs else None for name in (AFTER, BEFORE))
    if after is None or not len(after):
        return []
    found = reasons_of(after, presence_threshold)
    earlier = None if before is None else reasons_of(before, presence_threshold)
    rows = []
    for place, reason in enumerate(REASONS):
        failed = found == place
        of = int((~after.present).sum() if reason == ALARM else after.present.sum())
        if not of:
            continue
        by_dataset = Counter(after.dataset[failed].tolist())
        most = sorted(by_dataset.items(), key=lambda item: (-item[1], item[0]))
        rows.append(
            {
                "reason": reason,
                "meaning": MEANINGS[reason].format(threshold=f"{presence_threshold:g}"),
                "after": int(failed.sum()),
                "before": None if earlier is None else int((earlier == place).sum()),
                "of": of,
                "kind": "absent" if reason == ALARM else "present",
                "share": float(failed.sum()) / of,
                "where": [{"name": name, "count": number} for name, number in most[:_MOST_NAMED]],
                "others": max(0, len(most) - _MOST_NAMED),
            }
        )
    return rows
