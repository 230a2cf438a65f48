from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.shard_order import BLOCK_ROWS, OPEN_SHARDS, ShardOrder


def _order(shards: list[list[int]], *, window: int, seed: int = 0, dataset: int = 0) -> ShardOrder:
    """Each shard is given by the numbers of samples in its blocks."""
    numbers = [number for number, blocks in enumerate(shards) for _ in blocks]
    counts = [count for blocks in shards for count in blocks]
    return ShardOrder(
        np.array(numbers, np.int32), np.array(counts, np.int32), window=window, seed=seed, dataset=dataset
    )


_SHARDS = st.lists(st.lists(st.integers(1, BLOCK_ROWS), min_size=1, max_size=5), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(shards=_SHARDS, window=st.integers(1, 500), seed=st.integers(0, 9))
def test_each_cycle_visits_each_sample_once(shards: list[list[int]], window: int, seed: int) -> None:
    order = _order(shards, window=window, seed=seed)
    counts = [count for blocks in shards for count in blocks]
    wanted = sorted((block, number) for block, count in enumerate(counts) for number in range(count))
    for cycle in (0, 1, 7):
        draws = range(cycle * len(order), (cycle + 1) * len(order))
        assert sorted(order.place(draw) for draw in draws) == wanted


@settings(max_examples=40, deadline=None)
@given(shards=_SHARDS, window=st.integers(64, 300))
def test_who_follows_reads_each_block_once_and_needs_few_at_a_time(shards: list[list[int]], window: int) -> None:
    order = _order(shards, window=window)
    shard_of = [number for number, blocks in enumerate(shards) for _ in blocks]
    seen: dict[int, list[int]] = {}
    for draw in range(len(order)):
        block, _ = order.place(draw)
        seen.setdefault(block, []).append(draw)
        # what is fetched ahead holds what is read
        assert shard_of[block] in order.shards_from(draw)
        assert len(order.shards_from(draw)) <= 4 * OPEN_SHARDS
    # between its first and its last sample a block stays in memory: never for longer than a window and a block
    assert all(draws[-1] - draws[0] < window + BLOCK_ROWS for draws in seen.values())


def test_the_place_of_a_draw_depends_on_nothing_that_was_asked_before() -> None:
    shards = [[64, 64, 10], [64, 3], [64, 64, 64], [1], [50, 50]]
    first, again = _order(shards, window=100), _order(shards, window=100)
    draws = list(range(0, 5 * len(first), 7))
    assert [first.place(draw) for draw in draws] == [again.place(draw) for draw in reversed(draws)][::-1]


@pytest.mark.parametrize("what", ["seed", "dataset"])
def test_other_seeds_and_datasets_have_other_orders(what: str) -> None:
    shards = [[64] * 4] * 6
    one, other = _order(shards, window=256), _order(shards, window=256, **{what: 1})
    draws = range(len(one))
    assert [one.place(draw) for draw in draws] != [other.place(draw) for draw in draws]
    assert [one.place(draw) for draw in draws] != [one.place(len(one) + draw) for draw in draws]


def test_samples_that_were_neighbours_are_spread_over_the_window() -> None:
    order = _order([[64] * 16] * 8, window=1024)
    places = {order.place(draw): draw for draw in range(len(order))}
    gaps = [abs(places[block, 1] - places[block, 0]) for block in range(128)]
    # two of 1,024 drawn at random lie 341 apart on average
    assert np.mean(gaps) == pytest.approx(1024 / 3, rel=0.2)


def test_a_large_dataset_costs_a_few_numbers_a_block() -> None:
    # ten million samples in 64-row blocks, 16 blocks a shard
    shards, blocks = 9_766, 16
    order = ShardOrder(
        np.repeat(np.arange(shards, dtype=np.int32), blocks),
        np.full(shards * blocks, 64, np.int32),
        window=4096,
        seed=1,
        dataset=0,
    )
    order.place(9_000_000)
    held = sum(part.nbytes for kept in order._kept["cycle"].values() for part in kept)
    assert held < 20 * shards * blocks
