"""Assignments without scipy cost what scipy's cost."""

from __future__ import annotations

import builtins
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from training.sam3.assignment import cheapest, shortest_paths


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(1, 30), st.booleans())
def test_it_is_as_cheap_as_scipys(seed: int, rows: int, columns: int, ties: bool) -> None:
    draw = np.random.default_rng(seed)
    costs = draw.integers(-3, 3, (rows, columns)).astype(float) if ties else draw.normal(size=(rows, columns))
    costs[draw.random((rows, columns)) < 0.05] = 1e6  # what the matcher makes of NaN
    own, public = shortest_paths(costs), linear_sum_assignment(costs)
    assert costs[own].sum() == pytest.approx(costs[public].sum(), abs=1e-6)
    assert len(own[0]) == min(rows, columns)
    assert len(set(own[0].tolist())) == len(set(own[1].tolist())) == len(own[0])
    assert own[0].tolist() == sorted(own[0].tolist())


def test_the_official_queries_are_matched_alike() -> None:
    costs = np.random.default_rng(3).normal(size=(24, 200))
    assert np.array_equal(shortest_paths(costs)[1], linear_sum_assignment(costs)[1])


def test_a_machine_without_scipy_matches(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **named: Any) -> Any:
        if name.startswith("scipy"):
            raise ImportError(name)
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    rows, columns = cheapest(np.array([[4.0, 1.0, 3.0], [2.0, 0.0, 5.0]]))
    assert (rows.tolist(), columns.tolist()) == ([0, 1], [1, 0])
