from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.order import SCHEDULE, GlobalOrder, positions_of, shares


@given(
    step=st.integers(0, 50),
    batch=st.integers(1, 17),
    worlds=st.lists(st.integers(1, 8), min_size=2, max_size=2),
)
def test_any_number_of_workers_reads_the_same_positions(step: int, batch: int, worlds: list[int]) -> None:
    wanted = list(range(step * batch, (step + 1) * batch))
    for world in worlds:
        assert [place for rank in range(world) for place in positions_of(step, batch, rank, world)] == wanted


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6), seed=st.integers(0, 99))
def test_no_sample_comes_again_before_all_of_its_dataset_have_come(sizes: list[int], seed: int) -> None:
    order = GlobalOrder(sizes, 0.5, seed)
    starts = [sum(sizes[:number]) for number in range(len(sizes))]
    drawn = [order[position] for position in range(2 * SCHEDULE)]
    for start, size in zip(starts, sizes, strict=True):
        own = [index for index in drawn if start <= index < start + size]
        for cycle in range(0, len(own) - size + 1, size):
            assert sorted(own[cycle : cycle + size]) == list(range(start, start + size))


def test_temperature_zero_draws_datasets_alike() -> None:
    order = GlobalOrder([10, 1000], 0.0, 1)
    counts = Counter(order[position] < 10 for position in range(SCHEDULE))
    assert counts[True] == counts[False]


def test_the_order_depends_on_the_seed_and_on_nothing_else() -> None:
    first, again, other = (GlobalOrder([30, 50], 0.5, seed) for seed in (3, 3, 4))
    places = list(range(100, 300))
    # asked in another sequence: nothing is carried from one position to the next
    assert [first[place] for place in places] == [again[place] for place in reversed(places)][::-1]
    assert [first[place] for place in places] != [other[place] for place in places]


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 5000), min_size=1, max_size=8),
    temperature=st.floats(0, 1),
    visits=st.floats(0.5, 200),
    draws=st.integers(100, 20000),
)
def test_no_dataset_is_drawn_more_often_than_allowed_unless_all_are(
    sizes: list[int], temperature: float, visits: float, draws: int
) -> None:
    array = np.array(sizes)
    most = array * visits / draws
    found = shares(array, temperature, most)
    assert found.sum() == pytest.approx(1)
    assert (found > 0).all()
    if most.sum() > 1:
        assert (found <= most * (1 + 1e-9)).all()
        below = found < most * (1 - 1e-9)
        weights = array[below].astype(float) ** temperature
        assert found[below] / found[below].sum() == pytest.approx(weights / weights.sum())


def test_a_handful_of_pictures_does_not_come_hundreds_of_times() -> None:
    draws = 20 * SCHEDULE
    order = GlobalOrder([5, 400], 0.0, 1, visits=60, draws=draws)
    few = sum(order[position] < 5 for position in range(draws))
    assert few / 5 == pytest.approx(60, rel=0.15)
