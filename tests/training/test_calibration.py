"""Presence says after calibration what is; its order stays; predict uses it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.calibration import expected_calibration_error, platt
from training.decision import MASK_THRESHOLDS, Decision, choose_decision
from training.predict import concept_scores, presence_of
from training.sam3.model import Predictions


def _pairs(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits of a model that is 2.5 times too sure of itself and leans to "present", and what is there."""
    draw = np.random.default_rng(seed)
    true = draw.normal(0, 1.5, count)
    return 2.5 * true + 1.5, draw.random(count) < 1 / (1 + np.exp(-true))


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


def test_calibration_finds_the_scale_and_mends_the_error_on_data_it_has_not_seen() -> None:
    logits, present = _pairs(4000, 0)
    scale, shift = platt(logits, present)
    assert scale == pytest.approx(1 / 2.5, rel=0.1)
    assert shift == pytest.approx(-1.5 / 2.5, abs=0.1)
    others, there = _pairs(4000, 1)
    before = expected_calibration_error(_sigmoid(others), there)
    after = expected_calibration_error(_sigmoid(scale * others + shift), there)
    assert before > 0.15
    assert after < 0.03


def test_a_few_pairs_that_are_perfectly_parted_do_not_ask_for_certainty() -> None:
    scale, shift = platt([3.0, 2.0, -2.0, -4.0], [True, True, False, False])
    assert 0 < scale < 2
    assert 0.6 < _sigmoid(np.array(3 * scale + shift)) < 0.95


@pytest.mark.parametrize("present", [[True] * 4, [False] * 4, [False, False, True, True]])
def test_what_cannot_be_calibrated_stays(present: list[bool]) -> None:
    """One kind alone, or logits that say the opposite."""
    assert platt([4.0, 3.0, -3.0, -4.0], present) == (1.0, 0.0)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.integers(4, 60), st.floats(0.1, 30))
def test_cross_entropy_is_at_its_smallest(seed: int, count: int, spread: float) -> None:
    draw = np.random.default_rng(seed)
    logits = draw.normal(0, spread, count)
    present = draw.random(count) < _sigmoid(logits / spread)
    scale, shift = platt(logits, present)
    if (scale, shift) == (1.0, 0.0):
        return
    seen = present.sum()
    target = np.where(present, (seen + 1) / (seen + 2), 1 / (count - seen + 2))

    def cost(a: float, b: float) -> float:
        return float((np.logaddexp(0, a * logits + b) - target * (a * logits + b)).sum())

    least = cost(scale, shift)
    for a, b in ((1.03, 0.0), (0.97, 0.0), (1.0, 0.03), (1.0, -0.03)):
        assert least <= cost(scale * a, shift + b) + 1e-6


def test_error_of_what_is_right_and_of_what_is_surely_wrong() -> None:
    assert expected_calibration_error([1.0, 1.0, 0.0], [True, True, False]) == 0
    assert expected_calibration_error([1.0, 0.0], [False, True]) == 1
    assert expected_calibration_error([0.9] * 10, [True] * 5 + [False] * 5) == pytest.approx(0.4)
    assert expected_calibration_error([0.9, 0.1], [False, False], [3.0, 1.0]) == pytest.approx((0.9 * 3 + 0.1) / 4)


def _rows() -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for dataset, count in (("large", 400), ("small", 40)):
        for logit, present in zip(*_pairs(count, count), strict=True):
            row = {"dataset": dataset, "present": bool(present), "presence": float(_sigmoid(logit))}
            rows.append({**row, "presence_logit": float(logit), "dice": [0.8] * len(MASK_THRESHOLDS)})
    return rows


def test_the_decision_holds_the_calibration_and_its_threshold_is_on_the_calibrated_scale() -> None:
    rows = _rows()
    plain, mended = choose_decision(rows), choose_decision(rows, calibrate=True)
    assert (plain.presence_scale, plain.presence_shift) == (1.0, 0.0)
    assert mended.presence_scale == pytest.approx(0.4, rel=0.35)
    assert mended.mask_threshold == plain.mask_threshold
    # the best place to part them is about where present and absent are equally likely
    assert 0.3 <= mended.presence_threshold <= 0.65
    assert plain.presence_threshold > mended.presence_threshold


def test_predict_uses_it() -> None:
    logits = torch.tensor([[0.0, 0.0], [4.0, -1.0]])
    predictions = Predictions(
        logits=torch.zeros(2, 2, 3),
        boxes_cxcywh=torch.zeros(2, 2, 3, 4),
        presence=logits,
        masks=torch.zeros(2, 3, 4, 4),
        semantic=torch.zeros(2, 4, 4),
    )
    torch.testing.assert_close(presence_of(predictions, Decision()), logits[-1].sigmoid())
    mended = replace(Decision(), presence_scale=0.5, presence_shift=-1.0)
    torch.testing.assert_close(presence_of(predictions, mended), torch.sigmoid(torch.tensor([1.0, -1.5])))
    torch.testing.assert_close(concept_scores(predictions, mended), 0.5 * torch.sigmoid(torch.tensor([1.0, -1.5])))
