"""Figures of an evaluation as rows of tables: datasets trained on, external sets apart, concepts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from registry.report.words import interval, number

FIGURES = ("dice_text_before", "dice_text_after", "dice_box_after", "iou_text_after")


def dataset_rows(figures: dict[str, Any], datasets: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row per dataset of the evaluation or of the data version, by name."""
    measured, cards = figures.get("datasets") or {}, {one["dataset"]: one for one in datasets}
    rows = []
    for name in sorted({*measured, *cards}, key=str.lower):
        entry, card = measured.get(name) or {}, cards.get(name) or {}
        counts = card.get("counts") or {}
        row = {
            "name": name,
            "title": card.get("title") or name,
            "modality": entry.get("modality") or card.get("modality") or "",
            "external": bool(entry.get("external") or card.get("evaluation_only")),
            "source": card.get("source_kind"),
            "reason": card.get("source_reason") or "",
            "samples": counts.get("samples"),
            "quarantined": counts.get("cases_quarantined"),
            "test_samples": entry.get("samples"),
            **_figures(entry),
        }
        row["why"] = _why_nothing(entry, row["dice_text_after"])
        rows.append(row)
    return rows


def source_reasons(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Why data came from where it came from, said once for all datasets that share a reason."""
    groups: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row["reason"]:
            groups.setdefault((row["source"] or "source", row["reason"]), []).append(row["name"])
    return [{"source": source, "reason": reason, "names": names} for (source, reason), names in groups.items()]


def concept_rows(figures: dict[str, Any], datasets: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row per dataset and concept, the datasets by name, their concepts by name."""
    external = {row["name"] for row in dataset_rows(figures, datasets) if row["external"]}
    rows = []
    for dataset, entry in sorted((figures.get("datasets") or {}).items(), key=lambda item: item[0].lower()):
        for concept, values in sorted((entry.get("concepts") or {}).items()):
            row = {
                "dataset": dataset,
                "concept": concept,
                "external": dataset in external,
                "pairs": values.get("pairs"),
                **_figures(values),
            }
            row["why"] = "no test cases" if row["dice_text_after"] is None else ""
            rows.append(row)
    return rows


def interval_of(entry: dict[str, Any], figure: str) -> tuple[float, float] | None:
    """The interval that stands beside a mean; None where there is none.

    `intervals` of evaluation.json's entries holds them by figure.
    """
    return interval((entry.get("intervals") or {}).get(figure))


def _figures(entry: dict[str, Any]) -> dict[str, Any]:
    return {
        **{name: number(entry.get(name)) for name in FIGURES},
        "interval": interval_of(entry, "dice_text_after"),
        "box_interval": interval_of(entry, "dice_box_after"),
    }


def _why_nothing(entry: dict[str, Any], dice: float | None) -> str:
    if dice is not None:
        return ""
    if not entry:
        return "not evaluated"
    return "no test cases" if not entry.get("samples") else "nothing to measure"
