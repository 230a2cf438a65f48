"""Paired differences of two models as a forest plot: the same images, asked of both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from registry.charts import Axis, axis_of
from registry.report.words import interval, number

LEVELS = {"all": "All", "dataset": "By dataset", "modality": "By modality", "concept": "By concept"}
HEADLINE = "dice_text"
AGAINST = {"champion": "the champion", "start": "its start checkpoint"}
METRICS = {
    "dice_text": "Dice, text prompts",
    "dice_box": "Dice, boxes from the truth",
    "iou_text": "IoU, text prompts",
    "nsd": "Normalised surface distance",
    "hd95_mm": "HD95 (mm)",
}
_LOWER_IS_BETTER = ("hd95", "false_alarm", "ece", "score_absent")
_MOST_OPEN = 24


def forests(paired: Any) -> list[dict[str, Any]]:
    """A forest plot for what the model is compared with and each metric, from `paired` of evaluation.json.

    The champion comes before the start, the headline metric before others; none where nothing is paired.

    Returns:
        `against`, `metric`, `title`, `privileged`, `lower_is_better`, `axis` and `groups`: by level, external sets
        apart, each `{"title", "external", "rows", "open"}` with rows in the order of their difference.
    """
    entries = [one for one in paired or [] if number(one.get("difference")) is not None]
    plots: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for one in entries:
        plots.setdefault((str(one.get("against") or "start"), str(one.get("metric") or "")), []).append(one)
    order = sorted(plots, key=lambda key: (key[0] != "champion", key[0], key[1] != HEADLINE))
    return [_forest(against, metric, plots[against, metric]) for against, metric in order]


def title_of(metric: str) -> str:
    """A metric's name in words."""
    return METRICS.get(metric) or metric.replace("_", " ").capitalize() or "Figure"


def verdict(difference: float, between: tuple[float, float] | None, *, lower_is_better: bool = False) -> str:
    """ "better" or "worse" where the whole interval is on one side of 0, "equal" where it is 0, else "unclear"."""
    if between == (0.0, 0.0):
        return "equal"
    if between is None or between[0] <= 0 <= between[1]:
        return "unclear"
    return "better" if (difference > 0) is not lower_is_better else "worse"


def _forest(against: str, metric: str, entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    lower = any(sign in metric for sign in _LOWER_IS_BETTER)
    ends = [0.0]
    for one in entries:
        ends += [float(one["difference"]), *(interval(one.get("interval")) or ())]
    axis = axis_of(ends)
    groups = []
    for level, title in LEVELS.items():
        for external in (False, True):
            own = [one for one in entries if one.get("level") == level and bool(one.get("external")) is external]
            if own:
                rows = sorted(
                    (_row(one, axis, lower) for one in own), key=lambda row: (-row["difference"], row["name"].lower())
                )
                groups.append(
                    {
                        "level": level,
                        "title": f"{title}, external sets" if external else title,
                        "external": external,
                        "rows": rows,
                        "open": len(rows) <= _MOST_OPEN,
                    }
                )
    return {
        "against": AGAINST.get(against, against),
        "metric": metric,
        "title": title_of(metric),
        "privileged": "box" in metric,
        "lower_is_better": lower,
        "axis": axis,
        "groups": groups,
    }


def _row(entry: dict[str, Any], axis: Axis, lower_is_better: bool) -> dict[str, Any]:
    difference, between = float(entry["difference"]), interval(entry.get("interval"))
    name = entry.get("name") or "all"
    if entry.get("level") == "all":
        name = "External sets" if entry.get("external") else "Datasets trained on"
    return {
        "name": str(name),
        "external": bool(entry.get("external")),
        "before": number(entry.get("before")),
        "after": number(entry.get("after")),
        "difference": difference,
        "interval": between,
        "groups": entry.get("groups"),
        "pairs": entry.get("pairs"),
        "verdict": verdict(difference, between, lower_is_better=lower_is_better),
        "at": axis.at(difference),
        "low": None if between is None else axis.at(between[0]),
        "high": None if between is None else axis.at(between[1]),
    }
