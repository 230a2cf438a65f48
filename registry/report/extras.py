"""Tables of figures that not every evaluation has: presence, surfaces, instances, synonyms.

A table is `{"heads", "rows"}`; a row `{"name", "external", "sub", "cells"}`; a cell `{"title", "value", "as",
"interval"}`. Columns without any value are left out, and so is a table without rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from registry.report.evaluation import AFTER, BEFORE, CHAMPION, Intervals, interval_of
from registry.report.words import number

Column = tuple[str, str, str]  # figure, title, how it is shown
Line = tuple[str, str, bool, dict[str, Any]]  # name, what stands beside it, external, figures
_MODELS = {AFTER: "this model", BEFORE: "its start", CHAMPION: "champion"}

PRESENCE: tuple[Column, ...] = (
    ("auroc", "AUROC", "figure"),
    ("false_alarm_rate", "False alarms on absent", "percent"),
    ("ece", "Calibration error", "figure"),
    ("present_pairs", "Present pairs", "count"),
    ("absent_pairs", "Absent pairs", "count"),
)
SURFACES: tuple[Column, ...] = (
    ("nsd", "NSD", "figure"),
    ("hd95_mm", "HD95, mm", "millimetres"),
    ("dice", "Dice of volume", "figure"),
    ("missed", "Missed", "count"),
    ("pairs", "Pairs", "count"),
    ("tolerance_mm", "Tolerance, mm", "millimetres"),
)
INSTANCES: tuple[Column, ...] = (
    ("f1", "F1", "figure"),
    ("pq", "Panoptic quality", "figure"),
    ("ap", "AP", "figure"),
    ("ap50", "AP at IoU 0.5", "figure"),
    ("truth", "True objects", "count"),
    ("predicted", "Found", "count"),
    ("matched", "Matched", "count"),
)
SYNONYMS: tuple[Column, ...] = (
    ("dice_canonical", "Dice, its own name", "figure"),
    ("dice_synonyms", "Dice, synonyms", "figure"),
    ("dice_worst", "Dice, worst wording", "figure"),
    ("spread", "Spread", "figure"),
    ("wordings", "Wordings", "count"),
    ("pairs", "Pairs", "count"),
)
UNIONS: tuple[Column, ...] = (
    ("dice", "Dice, semantic mask", "figure"),
    ("dice_instances", "Dice, union of instances", "figure"),
    ("dice_top1", "Dice, top-1 instance", "figure"),
)
Table = dict[str, Any]
_RATES = ("auroc", "false_alarm_rate", "ece")


def presence_table(figures: dict[str, Any], external: Iterable[str]) -> Table | None:
    """Presence over all pairs and by dataset."""
    found, outside = figures.get("presence") or {}, set(external)
    lines: list[Line] = [
        ("All trained on" if found.get("external") else "All datasets", _MODELS[model], False, entry)
        for model, entry in _models(found.get("models") or {AFTER: found})
    ]
    lines += [("All external sets", _MODELS[model], True, entry) for model, entry in _models(found.get("external"))]
    for name, entries in _by_name(found.get("datasets")):
        lines.append((name, "", name in outside, (entries or {}).get(AFTER) or {}))
    # counts alone say nothing: where nothing absent was asked there is no rate, no rank and no calibration
    return _table([line for line in lines if any(number(line[3].get(key)) is not None for key in _RATES)], PRESENCE)


def surface_table(figures: dict[str, Any]) -> Table | None:
    """Surface distances of whole volumes by dataset and model."""
    return _table(
        [
            (name, _MODELS[model], bool(entry.get("external")), {"tolerance_mm": entry.get("tolerance_mm"), **found})
            for name, entry in _by_name(figures.get("surface"))
            for model, found in _models(entry.get("models"))
            if found
        ],
        SURFACES,
    )


def unmeasured_volumes(figures: dict[str, Any]) -> list[str]:
    """Why volumes have no surface distance, as sentences."""
    return [
        f"{name}: {count:,} volume{'' if count == 1 else 's'} – {reason}"
        for name, entry in _by_name(figures.get("surface"))
        for reason, count in _by_name(entry.get("not_measured"))
    ]


def instance_table(figures: dict[str, Any]) -> Table | None:
    """Objects one by one, by dataset and concept, of this model."""
    return _table(
        [
            (concept, name, bool(entry.get("external")), (found or {}).get(AFTER) or {})
            for name, entry in _by_name(figures.get("instances"))
            for concept, found in _by_name(entry.get("concepts"))
        ],
        INSTANCES,
    )


def union_table(figures: dict[str, Any]) -> Table | None:
    """Union of instances and top-1 instance beside the semantic mask, as the paper's tables have them."""
    intervals = Intervals(figures)
    lines: list[Line] = []
    for external in (False, True):
        for level in ("all", "dataset"):
            for name in intervals.names(level, external=external):
                values: dict[str, Any] = {}
                for metric, _, _ in UNIONS:
                    found = intervals.entry(level, name, external=external, metric=metric)
                    values |= {metric: found.get("value"), f"{metric}_interval": found.get("interval")}
                whole = "All external sets" if external else "All datasets"
                lines.append((name or whole, "", external, values))
    table = _table(lines, UNIONS)
    return table if table and len(table["heads"]) > 1 else None


def synonym_table(figures: dict[str, Any]) -> Table | None:
    """How robust the wording is: other words for the same concept."""
    found = figures.get("synonyms") or {}
    lines: list[Line] = [
        (title, "", key == "external", found.get(key) or {})
        for key, title in (("all", "All datasets"), ("external", "All external sets"))
    ]
    lines += [(name, "", False, entry or {}) for name, entry in _by_name(found.get("datasets"))]
    return _table(lines, SYNONYMS)


def _by_name(entries: dict[str, Any] | None) -> list[tuple[str, Any]]:
    return sorted((entries or {}).items(), key=lambda item: item[0].lower())


def _models(entries: dict[str, Any] | None) -> Iterator[tuple[str, dict[str, Any]]]:
    for model in _MODELS:
        found = (entries or {}).get(model)
        if isinstance(found, dict):
            yield model, found


def _table(lines: Sequence[Line], columns: Sequence[Column]) -> Table | None:
    kept = [one for one in columns if any(number(values.get(one[0])) is not None for *_, values in lines)]
    rows = [
        {
            "name": name,
            "sub": beside,
            "external": external,
            "cells": [
                {"title": title, "value": number(values.get(key)), "as": shown, "interval": interval_of(values, key)}
                for key, title, shown in kept
            ],
        }
        for name, beside, external, values in lines
        if any(number(values.get(key)) is not None for key, _, _ in kept)
    ]
    return {"heads": [title for _, title, _ in kept], "rows": rows} if rows else None
