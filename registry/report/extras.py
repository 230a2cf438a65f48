"""Tables of figures that not every evaluation has: presence, surfaces, instances. Empty columns are left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from registry.report.tables import interval_of
from registry.report.words import number

Column = tuple[str, str, str]  # key, title, filter

PRESENCE: tuple[Column, ...] = (
    ("presence_auroc", "AUROC of presence", "figure"),
    ("false_alarm_rate", "False alarms on absent", "percent"),
    ("presence_ece", "Calibration error", "figure"),
    ("score_present", "Score, present", "figure"),
    ("score_absent", "Score, absent", "figure"),
    ("absent_pairs", "Absent pairs", "count"),
)
SURFACES: tuple[Column, ...] = (
    ("nsd", "NSD", "figure"),
    ("nsd_text_after", "NSD", "figure"),
    ("hd95_mm", "HD95 (mm)", "figure"),
    ("hd95_mm_text_after", "HD95 (mm)", "figure"),
)
INSTANCES: tuple[Column, ...] = (
    ("instance_f1", "F1", "figure"),
    ("panoptic_quality", "Panoptic quality", "figure"),
    ("average_precision", "Average precision", "figure"),
    ("dice_instances_after", "Dice, union of instances", "figure"),
    ("dice_top1_after", "Dice, top-1 instance", "figure"),
)


def presence_table(figures: dict[str, Any], rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Presence by dataset."""
    return _table(figures, rows, PRESENCE)


def surface_table(figures: dict[str, Any], rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Surface distances by dataset."""
    return _table(figures, rows, SURFACES)


def instance_table(figures: dict[str, Any], rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Instances by dataset."""
    return _table(figures, rows, INSTANCES)


def _table(
    figures: dict[str, Any], rows: Sequence[dict[str, Any]], columns: Sequence[Column]
) -> dict[str, Any] | None:
    """Columns that have a value and rows of datasets that have one; None where there is neither."""
    entries = figures.get("datasets") or {}
    kept = [one for one in columns if any(number(entry.get(one[0])) is not None for entry in entries.values())]
    lines = []
    for row in rows:
        entry = entries.get(row["name"]) or {}
        cells = [
            {"value": number(entry.get(key)), "as": shown, "title": title, "interval": interval_of(entry, key)}
            for key, title, shown in kept
        ]
        if any(cell["value"] is not None for cell in cells):
            lines.append({"name": row["name"], "external": row["external"], "cells": cells})
    return {"columns": [title for _, title, _ in kept], "rows": lines} if lines else None
