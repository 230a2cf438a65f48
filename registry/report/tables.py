"""Figures of an evaluation as rows of tables: datasets trained on, external sets apart, concepts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from registry.report.evaluation import Intervals, interval_of
from registry.report.words import number

FIGURES = ("dice_text_before", "dice_text_after", "dice_text_champion", "dice_box_after", "iou_text_after")


def dataset_rows(figures: dict[str, Any], datasets: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row per dataset of the evaluation or of the data version, by name."""
    intervals = Intervals(figures)
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
        for figure, prompt in (("interval", "text"), ("box_interval", "box")):
            row[figure] = row[figure] or intervals.of("dataset", name, external=row["external"], prompt=prompt)
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
    """A row per dataset and concept that has a test case, the datasets by name, their concepts by name.

    `interval` stands where the evaluation has one of this concept in this dataset, or where no other dataset has it.
    """
    external = {row["name"] for row in dataset_rows(figures, datasets) if row["external"]}
    intervals, measured = Intervals(figures), figures.get("datasets") or {}
    homes = Counter(
        (concept, dataset in external)
        for dataset, entry in measured.items()
        for concept, values in (entry.get("concepts") or {}).items()
        if values.get("pairs")
    )
    rows = []
    for dataset, concept, values in _concepts(measured):
        row = {
            "dataset": dataset,
            "concept": concept,
            "external": dataset in external,
            "pairs": values.get("pairs"),
            **_figures(values),
        }
        if row["dice_text_after"] is None:
            continue
        if homes[concept, row["external"]] == 1:
            row["interval"] = row["interval"] or intervals.of("concept", concept, external=row["external"])
        rows.append(row)
    return rows


def unmeasured_concepts(figures: dict[str, Any]) -> list[dict[str, Any]]:
    """Concepts without a test case: `{"dataset", "concepts"}`."""
    found: dict[str, list[str]] = {}
    for dataset, concept, values in _concepts(figures.get("datasets") or {}):
        if number(values.get("dice_text_after")) is None:
            found.setdefault(dataset, []).append(concept)
    return [{"dataset": dataset, "concepts": concepts} for dataset, concepts in found.items()]


def modality_rows(figures: dict[str, Any]) -> list[dict[str, Any]]:
    """A row per modality of the datasets trained on, then of external sets, from `aggregates`."""
    intervals = Intervals(figures)
    rows = []
    for external in (False, True):
        for name in intervals.names("modality", external=external):
            after = intervals.entry("modality", name, external=external)
            before = intervals.entry("modality", name, external=external, model="before")
            if number(after.get("value")) is not None:
                rows.append(
                    {
                        "name": name,
                        "external": external,
                        "groups": after.get("groups"),
                        "pairs": after.get("pairs"),
                        "before": number(before.get("value")),
                        "after": number(after.get("value")),
                        "interval": intervals.of("modality", name, external=external),
                    }
                )
    return rows


def _concepts(measured: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for dataset, entry in sorted(measured.items(), key=lambda item: item[0].lower()):
        for concept, values in sorted((entry.get("concepts") or {}).items()):
            yield dataset, concept, values


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
