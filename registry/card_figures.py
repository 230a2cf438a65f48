"""Rows of a model card's tables out of an `evaluation.json`, of either schema; a figure that is not there is a dash."""

from __future__ import annotations

import math
from typing import Any

Evaluation = dict[str, Any]
Cells = tuple[str, ...]

_NONE = "–"


def shown(value: Any, places: int = 3) -> str:
    """A number with so many places; a dash for what is none."""
    number = _number(value)
    return _NONE if number is None else f"{number:.{places}f}"


def interval(bounds: Any) -> str:
    """[low, high] as text."""
    return f"{shown(bounds[0])} to {shown(bounds[1])}" if bounds else _NONE


def dataset_rows(evaluation: Evaluation) -> list[Cells]:
    """A row a dataset and, last, the means: samples, Dice before, after, its interval, Dice by boxes."""
    rows = []
    for name, one in sorted((evaluation.get("datasets") or {}).items()):
        mark = f"{name} (external)" if one.get("external") else name
        rows.append(_dice_row(mark, one, _text_interval(evaluation, "dataset", name, bool(one.get("external")))))
    summary = evaluation.get("summary") or {}
    rows.append(_dice_row("mean over datasets", summary, _text_interval(evaluation, "all", "", False)))
    if summary.get("external"):
        rows.append(
            _dice_row("mean over external sets", summary["external"], _text_interval(evaluation, "all", "", True))
        )
    return rows


def _dice_row(name: str, one: dict[str, Any], bounds: Any) -> Cells:
    values = (one.get("dice_text_before"), one.get("dice_text_after"))
    return (name, _count(one.get("samples")), *map(shown, values), interval(bounds), shown(one.get("dice_box_after")))


def _text_interval(evaluation: Evaluation, level: str, name: str, external: bool) -> Any:
    wanted = {"level": level, "name": name, "external": external, "model": "after", "prompt": "text", "metric": "dice"}
    for one in evaluation.get("aggregates") or []:
        if all(one.get(key) == value for key, value in wanted.items()):
            return one.get("interval")
    return None


def surface_rows(evaluation: Evaluation) -> list[Cells]:
    """A row a dataset with whole volumes: Dice, normalised surface distance, HD95, missed, with intervals."""
    rows = []
    for name, one in sorted((evaluation.get("surface") or {}).items()):
        after = (one.get("models") or {}).get("after") or {}
        if after:
            cells = [
                _with_interval(after, figure, places) for figure, places in (("dice", 3), ("nsd", 3), ("hd95_mm", 1))
            ]
            rows.append((name, *cells, f"{_count(after.get('missed'))} of {_count(after.get('pairs'))}"))
    return rows


def paired_rows(evaluation: Evaluation) -> list[Cells]:
    """The paired differences over all, and over external sets."""
    rows: list[Cells] = []
    for one in evaluation.get("paired") or []:
        if one.get("level") == "all":
            what = "external sets" if one.get("external") else "all datasets"
            values = (shown(one.get("before")), shown(one.get("after")), shown(one.get("difference")))
            rows.append(
                (str(one.get("against")), what, *values, interval(one.get("interval")), _count(one.get("pairs")))
            )
    return rows


def worst_datasets(evaluation: Evaluation) -> list[Cells]:
    """Measured datasets, the lowest Dice first."""
    found = [
        (value, name, one)
        for name, one in (evaluation.get("datasets") or {}).items()
        if (value := _number(one.get("dice_text_after"))) is not None
    ]
    return [(name, shown(value), _count(one.get("samples"))) for value, name, one in sorted(found, key=lambda f: f[:2])]


def worst_concepts(evaluation: Evaluation) -> list[Cells]:
    """Measured concepts of all datasets, the lowest Dice first."""
    found = [
        (value, concept, name, one.get("pairs"))
        for name, dataset in (evaluation.get("datasets") or {}).items()
        for concept, one in (dataset.get("concepts") or {}).items()
        if (value := _number(one.get("dice_text_after"))) is not None
    ]
    ordered = sorted(found, key=lambda one: one[:3])
    return [(concept, name, shown(value), _count(pairs)) for value, concept, name, pairs in ordered]


def failure_rows(evaluation: Evaluation) -> list[Cells]:
    """Pairs by dataset and kind of failure, the most frequent first."""
    counted = [
        (-int(pairs), name, reason)
        for name, models in (evaluation.get("failures") or {}).items()
        for reason, pairs in (models.get("after") or {}).items()
        if pairs
    ]
    return [(name, reason.replace("_", " "), _count(-pairs)) for pairs, name, reason in sorted(counted)]


def absent_figures(evaluation: Evaluation) -> list[tuple[str, str]]:
    """What is known of absent concepts over all datasets."""
    summary, presence = evaluation.get("summary") or {}, evaluation.get("presence") or {}
    return [
        ("mean score where the concept is absent", shown(summary.get("score_absent"))),
        ("the same before training", shown(summary.get("score_absent_before"))),
        ("mean score where it is present", shown(summary.get("score_present"))),
        ("presence AUROC", _with_interval(presence, "auroc")),
        ("false alarms, share of absent pairs", _with_interval(presence, "false_alarm_rate")),
        ("calibration error of presence (ECE)", _with_interval(presence, "ece")),
    ]


def absent_rows(evaluation: Evaluation) -> list[Cells]:
    """Datasets with absent concepts, the highest score there first."""
    found = [
        (value, name, one)
        for name, one in (evaluation.get("datasets") or {}).items()
        if (value := _number(one.get("score_absent"))) is not None
    ]
    return [
        (name, shown(value), shown(one.get("score_present")), _count(one.get("absent_pairs")))
        for value, name, one in sorted(found, key=lambda each: (-each[0], each[1]))
    ]


def _with_interval(one: dict[str, Any], name: str, places: int = 3) -> str:
    bounds = one.get(f"{name}_interval")
    text = shown(one.get(name), places)
    return f"{text} ({shown(bounds[0], places)} to {shown(bounds[1], places)})" if bounds else text


def _count(value: Any) -> str:
    number = _number(value)
    return _NONE if number is None else f"{int(number):,}"


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)
