"""Rows of an evaluation to its table and its figures. Needs no torch."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

ROWS_SCHEMA = pa.schema(
    [
        pa.field(name, kind)
        for name, kind in {
            "sample_id": pa.string(),
            "dataset": pa.string(),
            "modality": pa.string(),
            "case_id": pa.string(),
            "group_id": pa.string(),
            "concept": pa.string(),
            "prompt": pa.string(),
            "wording": pa.string(),
            "model": pa.string(),
            "present": pa.bool_(),
            "score": pa.float64(),
            "presence": pa.float64(),
            "dice": pa.float64(),
            "iou": pa.float64(),
            "dice_instances": pa.float64(),
            "dice_top1": pa.float64(),
            "truth_px": pa.int64(),
            "predicted_px": pa.int64(),
            "image_px": pa.int64(),
            "failure": pa.string(),
        }.items()
    ]
)


def mean(values: Sequence[float]) -> float | None:
    """Mean, or None where there is nothing to measure; NaN where a value is, and so in every mean of means."""
    return float(np.mean(values)) if len(values) else None


_MEANS = (
    "dice_text_before",
    "dice_text_after",
    "dice_box_after",
    "iou_text_after",
    "dice_instances_after",
    "score_present",
    "score_absent",
    "score_absent_before",
)


def summarise(rows: list[dict[str, Any]], modalities: dict[str, str], external: Collection[str] = ()) -> dict[str, Any]:
    """`datasets` and `summary` of evaluation.json from the rows of all samples.

    `external` names datasets that nothing is trained on: their means stand apart, as the paper's two tables do.
    """
    datasets: dict[str, Any] = {}
    against = any(row["model"] == "champion" for row in rows)
    for name, modality in modalities.items():
        own = [row for row in rows if row["dataset"] == name]

        def dice(model: str, prompt: str, part: list[dict[str, Any]], figure: str = "dice") -> float | None:
            return mean(
                [row[figure] for row in part if row["present"] and row["model"] == model and row["prompt"] == prompt]
            )

        def score(model: str, present: bool, part: list[dict[str, Any]]) -> float | None:
            return mean(
                [
                    row["score"]
                    for row in part
                    if row["prompt"] == "text" and row["model"] == model and row["present"] is present
                ]
            )

        def figures(part: list[dict[str, Any]]) -> dict[str, Any]:
            return {
                "dice_text_before": dice("before", "text", part),
                "dice_text_after": dice("after", "text", part),
                "dice_box_after": dice("after", "box", part),
                "iou_text_after": dice("after", "text", part, "iou"),
                "dice_instances_after": dice("after", "text", part, "dice_instances"),
                **({"dice_text_champion": dice("champion", "text", part)} if against else {}),
            }

        asked = [row for row in own if row["prompt"] == "text" and row["model"] == "after"]
        datasets[name] = {
            "modality": modality,
            "external": name in external,
            "samples": len({row["sample_id"] for row in own}),
            **figures(own),
            "score_present": score("after", True, own),
            "score_absent": score("after", False, own),
            "score_absent_before": score("before", False, own),
            "absent_pairs": sum(not row["present"] for row in asked),
            "concepts": {
                concept: {
                    "pairs": sum(row["present"] for row in asked if row["concept"] == concept),
                    **figures([row for row in own if row["concept"] == concept]),
                }
                for concept in sorted({row["concept"] for row in own})
            },
        }
    inside = {name: entry for name, entry in datasets.items() if not entry["external"]}
    summary: dict[str, Any] = _means(list(inside.values()))
    summary["score_absent_pairs"] = mean(
        [
            row["score"]
            for row in rows
            if row["prompt"] == "text" and row["model"] == "after" and not row["present"] and row["dataset"] in inside
        ]
    )
    summary["samples"] = sum(entry["samples"] for entry in inside.values())
    outside = [entry for entry in datasets.values() if entry["external"]]
    if outside:
        summary["external"] = {**_means(outside), "samples": sum(entry["samples"] for entry in outside)}
    return {"datasets": datasets, "summary": summary}


def _means(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over the datasets that have a value."""
    names = [*_MEANS, *(["dice_text_champion"] if any("dice_text_champion" in entry for entry in entries) else [])]
    return {figure: mean([entry[figure] for entry in entries if entry[figure] is not None]) for figure in names}


def table_of(rows: list[dict[str, Any]]) -> pa.Table:
    """Rows as an Arrow table in a fixed order."""
    ordered = sorted(
        rows,
        key=lambda row: (
            row["dataset"],
            row["sample_id"],
            row["concept"],
            row["prompt"],
            row.get("wording", ""),
            row["model"],
        ),
    )
    return pa.Table.from_pylist(ordered, schema=ROWS_SCHEMA)
