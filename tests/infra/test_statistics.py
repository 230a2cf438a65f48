"""Intervals over groups: they cover, groups and not samples are drawn, and the same rows give the same numbers."""

from __future__ import annotations

import numpy as np
import pytest

from infra.statistics import DRAWS, interval, mean_replicates, over_strata, replicates


def _mean(values: np.ndarray):  # type: ignore[no-untyped-def]
    return lambda weights: (weights @ values) / weights.sum(axis=1)


def test_the_interval_of_a_mean_is_the_textbook_one() -> None:
    draw = np.random.default_rng(0)
    values = draw.normal(0.6, 0.1, 400)
    low, high = interval(mean_replicates([str(n) for n in range(400)], values, "x")) or (0, 0)
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.002)
    assert high == pytest.approx(values.mean() + half, abs=0.002)


def test_twenty_slices_of_a_patient_are_no_twenty_patients() -> None:
    draw = np.random.default_rng(1)
    patients = draw.normal(0.5, 0.1, 10)
    slices, groups = np.repeat(patients, 20), [f"p{n}" for n in range(10) for _ in range(20)]
    by_group = interval(mean_replicates(groups, slices, "x"))
    by_patient = interval(mean_replicates([f"p{n}" for n in range(10)], patients, "x"))
    assert by_group == pytest.approx(by_patient)


def test_95_percent_cover_the_truth() -> None:
    draw = np.random.default_rng(2)
    hits = 0
    for number in range(200):
        values = draw.normal(0, 1, 40)
        low, high = interval(mean_replicates([str(n) for n in range(40)], values, str(number))) or (0, 0)
        hits += low <= 0 <= high
    assert 0.89 <= hits / 200 <= 0.99


def test_sums_over_groups_are_the_same_as_weights_of_rows() -> None:
    draw = np.random.default_rng(3)
    values, groups = draw.random((50, 2)), [str(n) for n in draw.integers(0, 7, 50)]
    both = mean_replicates(groups, values, "x")
    assert both.shape == (DRAWS, 2)
    for column in range(2):
        np.testing.assert_allclose(both[:, column], replicates(groups, _mean(values[:, column]), "x"))


def test_draws_hang_on_the_name_and_not_on_the_order_of_rows() -> None:
    draw = np.random.default_rng(4)
    values, groups = draw.random(30), [str(n // 3) for n in range(30)]
    order = draw.permutation(30)
    one = mean_replicates(groups, values, "A")
    np.testing.assert_allclose(one, mean_replicates([groups[n] for n in order], values[order], "A"))
    assert not np.allclose(one, mean_replicates(groups, values, "B"))


def test_one_group_says_nothing_of_others() -> None:
    assert interval(mean_replicates(["p"] * 5, [0.1, 0.2, 0.3, 0.4, 0.5], "x")) is None
    alone = (0.5, np.full(DRAWS, np.nan))
    assert interval(over_strata([alone])) is None
    two = mean_replicates(["a", "b"], [0.0, 1.0], "x")
    low, high = interval(over_strata([alone, (0.5, two)])) or (0, 0)
    assert (low, high) == (0.25, 0.75)  # the stratum of one stands still
