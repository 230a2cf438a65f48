"""A group is on one side for ever."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.shards import shard_count, shard_of
from preprocessing.splits import pseudonym, split_of

shares = st.tuples(st.floats(0, 0.45), st.floats(0, 0.45))


@given(st.text(), st.text(), st.text(), shares)
def test_a_group_alone_decides(dataset: str, group: str, key: str, share: tuple[float, float]) -> None:
    first = split_of(dataset, group, key, *share)
    assert first == split_of(dataset, group, key, *share)
    assert first in ("train", "val", "test")
    assert split_of(dataset, group, key, *share, "test") == "test"
    assert split_of(dataset, group, key, *share, "development") != "test"


@given(st.text(), st.floats(0, 0.3), st.floats(0, 0.3), st.floats(0, 0.3))
def test_more_test_never_takes_from_test(group: str, val: float, test: float, more: float) -> None:
    if split_of("d", group, "k", val, test) == "test":
        assert split_of("d", group, "k", val, test + more) == "test"


def test_the_shares_are_met_on_average() -> None:
    found = [split_of("d", f"group {index}", "k", 0.2, 0.1) for index in range(5000)]
    assert found.count("val") / 5000 == pytest.approx(0.2, abs=0.02)
    assert found.count("test") / 5000 == pytest.approx(0.1, abs=0.02)
    held = [split_of("d", f"group {index}", "k", 0.2, 0.1, "development") for index in range(5000)]
    assert held.count("val") / 5000 == pytest.approx(0.2 / 0.9, abs=0.02)


def test_shares_without_room_for_training_are_refused() -> None:
    with pytest.raises(ValueError, match="found"):
        split_of("d", "g", "k", 0.5, 0.5)


@given(st.text(min_size=1), st.text(min_size=1))
def test_a_pseudonym_needs_the_key(group: str, other: str) -> None:
    name = pseudonym("d", group, b"key")
    assert name == pseudonym("d", group, b"key")
    assert name != pseudonym("d", group, b"another key")
    assert (name == pseudonym("d", other, b"key")) == (group == other)
    assert len(name) == 22


@given(st.text(), st.integers(0, 9))
def test_growing_splits_a_shard_and_mixes_none(case: str, power: int) -> None:
    count = 2**power
    assert 0 <= shard_of("d", case, count) < count
    assert shard_of("d", case, 2 * count) // 2 == shard_of("d", case, count)


@given(st.integers(0, 10**12), st.integers(1, 10**9))
def test_shards_hold_about_the_target(payload: int, target: int) -> None:
    count = shard_count(payload, target)
    assert count * target >= payload
    assert count == 1 or count // 2 * target < payload
