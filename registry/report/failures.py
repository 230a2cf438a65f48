"""Failures by reason: what the evaluation counted, and what each reason means (`training.scoring.failure`)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from registry.report.evaluation import AFTER, BEFORE, CHAMPION
from registry.report.words import number

ALARM = "false_alarm"
REASONS = {
    "missed": (
        "Missed",
        "It is there and nothing is outlined: its presence is below the threshold{threshold}, so that the model says "
        "it is absent, or no pixel is sure enough.",
    ),
    "elsewhere": ("Wrong place", "It is there, something is outlined, and the two share no pixel: IoU 0."),
    "too_large": ("Over-segmented", "Dice below 0.5, and more than twice the truth's pixels are outlined."),
    "too_small": ("Under-segmented", "Dice below 0.5, and less than half of the truth's pixels are outlined."),
    "imprecise": (
        "Imprecise",
        "Dice below 0.5 at about the right size: the outline is shifted or has the wrong shape.",
    ),
    ALARM: ("False alarm", "The image was searched, it is not there, and something is outlined all the same."),
}
_MOST_NAMED = 3


def failure_rows(figures: dict[str, Any], datasets: Collection[str]) -> list[dict[str, Any]]:
    """A row a reason over the pairs of `datasets`; none where the evaluation did not count them.

    Returns:
        `reason`, `meaning`, `after`, `before` and `champion` (pairs; None where that model was not asked), `of` (how
        many pairs could fail so), `kind` of those pairs, `share`, and `where`: the datasets with most of them.
    """
    counted = {name: one for name, one in (figures.get("failures") or {}).items() if name in datasets}
    asked = {model for one in counted.values() for model in one}
    if AFTER not in asked:
        return []
    threshold = number((figures.get("decision") or {}).get("presence_threshold"))
    present, absent = _pairs(figures, counted)
    known = {reason for one in counted.values() for found in one.values() for reason in found}
    rows = []
    for reason in [*REASONS, *sorted(known - set(REASONS))]:
        title, meaning = REASONS.get(reason, (reason.replace("_", " ").capitalize(), ""))
        by_dataset = {name: int((one.get(AFTER) or {}).get(reason) or 0) for name, one in counted.items()}
        most = sorted(((-count, name) for name, count in by_dataset.items() if count))
        of = absent if reason == ALARM else present
        if not of:
            continue
        total = sum(by_dataset.values())
        rows.append(
            {
                "reason": title,
                "meaning": meaning.format(threshold="" if threshold is None else f" of {threshold:g}"),
                "after": total,
                **{model: _count(counted, model, reason) if model in asked else None for model in (BEFORE, CHAMPION)},
                "of": of,
                "kind": "absent" if reason == ALARM else "present",
                "share": total / of,
                "where": [{"name": name, "count": -count} for count, name in most[:_MOST_NAMED]],
                "others": max(0, len(most) - _MOST_NAMED),
            }
        )
    return rows


def _count(counted: dict[str, Any], model: str, reason: str) -> int:
    return sum(int((one.get(model) or {}).get(reason) or 0) for one in counted.values())


def _pairs(figures: dict[str, Any], datasets: Collection[str]) -> tuple[int, int]:
    """Present and absent pairs of some datasets."""
    entries = [(figures.get("datasets") or {}).get(name) or {} for name in datasets]
    present = sum(int(one.get("pairs") or 0) for entry in entries for one in (entry.get("concepts") or {}).values())
    return present, sum(int(entry.get("absent_pairs") or 0) for entry in entries)
