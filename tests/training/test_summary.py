"""Means over datasets, whatever their sizes; external sets stand apart."""

from __future__ import annotations

import math
from typing import Any

import pytest

from infra.storage import null_for_nan
from training.summary import summarise


def _row(dataset: str, dice: float, model: str = "after", **more: Any) -> dict[str, Any]:
    return {
        "dataset": dataset, "sample_id": f"{dataset}/{dice}", "concept": "polyp", "prompt": "text", "model": model,
        "present": True, "score": 0.5, "presence": 0.5, "dice": dice, "iou": dice / 2, "dice_instances": 0.0, **more,
    }  # fmt: skip


def test_each_dataset_counts_once_and_external_sets_stand_apart() -> None:
    rows = [_row("large", 0.2), _row("large", 0.4), _row("small", 0.9), _row("outside", 0.1)]
    rows += [_row("large", 0.1, "before"), _row("outside", 0.0, "before")]
    rows.append(_row("large", 0.0, present=False, score=0.3))
    rows.append(_row("outside", 0.0, present=False, score=0.9))
    found = summarise(rows, {"large": "CT", "small": "MR", "outside": "MR", "nothing": "MR"}, external=["outside"])
    summary = found["summary"]
    assert summary["dice_text_after"] == pytest.approx((0.3 + 0.9) / 2)
    assert summary["dice_text_before"] == pytest.approx(0.1)
    assert summary["score_absent"] == summary["score_absent_pairs"] == pytest.approx(0.3)
    assert summary["external"]["dice_text_after"] == pytest.approx(0.1)
    assert summary["external"]["score_absent"] == pytest.approx(0.9)
    assert {name: one["external"] for name, one in found["datasets"].items()} == {
        "large": False, "small": False, "outside": True, "nothing": False
    }  # fmt: skip
    assert found["datasets"]["nothing"]["dice_text_after"] is None
    assert "external" not in summarise(rows, {"large": "CT"})["summary"]


def test_a_score_that_is_no_number_is_not_hidden_by_the_other_datasets() -> None:
    rows = [_row(name, 0.0, present=False, score=score) for name, score in (("sound", 0.1), ("broken", math.nan))]
    found = null_for_nan(summarise(rows, {"sound": "CT", "broken": "MR"}))
    assert found["datasets"]["sound"]["score_absent"] == pytest.approx(0.1)
    assert found["summary"]["score_absent"] is None
