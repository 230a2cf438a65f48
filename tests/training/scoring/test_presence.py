"""Presence: ranking, false alarms, calibration, by hand and against scikit-learn where it is installed."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from infra.statistics import whole
from infra.storage import null_for_nan
from training.calibration import expected_calibration_error
from training.scoring.document import presence_figures
from training.scoring.presence import auroc, calibration_error, share


def test_auroc_by_hand() -> None:
    # pairs (there, not there): 0.8 > 0.4, 0.8 > 0.6, 0.4 = 0.4 (half), 0.4 < 0.6
    assert whole(auroc([0.8, 0.4, 0.4, 0.6], [True, True, False, False]), 4) == pytest.approx(2.5 / 4)
    assert whole(auroc([0.9, 0.1], [True, False]), 2) == 1
    assert whole(auroc([0.5] * 6, [True, False] * 3), 6) == 0.5


@pytest.mark.parametrize("present", [[], [True, True], [False]])
def test_with_one_kind_alone_there_is_no_ranking(present: list[bool]) -> None:
    assert whole(auroc([0.5] * len(present), present), len(present)) is None


def test_weights_count_as_copies() -> None:
    draw = np.random.default_rng(1)
    scores, there, counts = draw.random(30).round(1), draw.random(30) < 0.4, draw.integers(0, 4, 30)
    for make in (auroc, calibration_error):
        weighted = make(scores, there)(counts[None].astype(float))[0]
        copied = make(np.repeat(scores, counts), np.repeat(there, counts))(np.ones((1, counts.sum())))[0]
        assert weighted == pytest.approx(copied)


def test_auroc_is_the_share_of_pairs_in_order() -> None:
    draw = np.random.default_rng(2)
    scores, there = draw.random(200).round(2), draw.random(200) < 0.3
    one, other = scores[there][:, None], scores[~there][None]
    assert whole(auroc(scores, there), 200) == pytest.approx(((one > other) + (one == other) / 2).mean())


def test_false_alarms_are_counted_where_nothing_is() -> None:
    marked, absent = [True, True, False, True], [False, True, True, True]
    assert whole(share(marked, absent), 4) == pytest.approx(2 / 3)
    assert whole(share([True], [False]), 1) is None


def test_calibration_is_that_of_training() -> None:
    draw = np.random.default_rng(3)
    said, was = draw.random(100), draw.random(100) < 0.5
    assert whole(calibration_error(said, was), 100) == pytest.approx(expected_calibration_error(said, was))
    # said 0.8, eight of ten: no error; said 0.8, none: 0.8
    assert whole(calibration_error([0.8] * 10, [True] * 8 + [False] * 2), 10) == pytest.approx(0, abs=1e-9)
    assert whole(calibration_error([0.8] * 10, [False] * 10), 10) == pytest.approx(0.8)


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_an_answer_that_is_no_number_leaves_no_figure_in_any_draw(broken: float) -> None:
    said, there = [0.9, broken, 0.2, 0.4], [True, False, False, True]
    draws = np.array([[1.0, 1.0, 1.0, 1.0], [1.0, 0.0, 2.0, 1.0]])  # the second draws it not at all
    for make in (auroc, calibration_error):
        assert np.isnan(make(said, there)(draws)).all()
    assert np.isnan(expected_calibration_error(said, there))


def test_whether_an_unknown_answer_marks_something_matters_only_where_it_is_asked() -> None:
    marked, absent = [1.0, np.nan, 0.0], [True, False, True]
    assert whole(share(marked, absent), 3) == pytest.approx(1 / 2)
    assert whole(share(marked), 3) is None


def test_one_dataset_without_a_figure_leaves_none_for_the_mean_over_datasets() -> None:
    def row(dataset: str, number: int, presence: float, present: bool) -> dict[str, Any]:
        return {"dataset": dataset, "model": "after", "prompt": "text", "group_id": f"g{number}", "present": present,
                "presence": presence, "predicted_px": 0}  # fmt: skip

    rows = [row(dataset, number, 0.5, number % 2 == 0) for dataset in ("sound", "broken") for number in range(6)]
    rows[-1]["presence"] = math.nan  # of something absent
    found = null_for_nan(presence_figures(rows, external=[]))
    assert found["datasets"]["sound"]["after"]["false_alarm_rate"] == 0
    assert found["datasets"]["broken"]["after"]["false_alarm_rate"] is None
    assert [found[name] for name in ("auroc", "false_alarm_rate", "ece", "ece_interval")] == [None] * 4
    json.dumps(found, allow_nan=False)
    # where nothing is absent there is nothing to measure, which takes nothing from the others
    rows = [*rows[:6], *(row("all there", number, 0.5, True) for number in range(4))]
    assert presence_figures(rows, external=[])["false_alarm_rate"] == 0
