"""Which pictures a report shows: by rank, good and bad alike, the same ones every time."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.overlays import choose


def pair(dataset: str, number: int, dice: float, **given: Any) -> dict[str, Any]:
    return {"dataset": dataset, "sample_id": f"{dataset}/{number:03d}", "concept": "x", "prompt": "text",
            "model": "after", "present": True, "dice": dice, **given}  # fmt: skip


def parts(chosen: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in chosen:
        for part in row["shown_as"]:
            found.setdefault(part, []).append(row)
    return found


def keys(rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(row["sample_id"], row["concept"]) for row in rows]


def test_best_median_and_worst_twenty_of_a_hundred():
    rows = [pair("A", number, number / 100) for number in range(100)]
    found = parts(choose(rows))
    assert [row["dice"] for row in found["worst"]] == [number / 100 for number in range(20)]
    assert [row["dice"] for row in found["best"]] == [number / 100 for number in range(99, 79, -1)]
    assert [row["dice"] for row in found["median"]] == [number / 100 for number in range(59, 39, -1)]
    assert [row["dice"] for row in found["dataset"]] == [0.0, 0.49, 0.99]
    assert len(choose(rows)) == 60


def test_what_is_absent_boxed_or_of_the_start_is_not_shown():
    rows = [
        pair("A", 0, 0.5),
        pair("A", 1, 0.9, model="before"),
        pair("A", 2, 0.9, prompt="box"),
        pair("A", 3, 0.0, present=False),
    ]
    assert keys(choose(rows)) == [("A/000", "x")]
    assert choose([]) == []


def test_datasets_take_turns_among_equals():
    rows = [pair("A", number, 0.0) for number in range(300)]
    rows += [pair(name, number, 0.0) for name in ("B", "C") for number in range(5)]
    rows += [pair("D", number, 0.9) for number in range(100)]
    worst = parts(choose(rows))["worst"]
    assert [row["dataset"] for row in worst] == ["A", "B", "C"] * 5 + ["A"] * 5


def test_no_dataset_goes_unseen():
    rows = [pair("A", number, 0.0) for number in range(100)] + [pair("Z", number, 1.0) for number in range(100)]
    rows += [pair("M", number, 0.4 + number / 1000) for number in range(5)]
    rows += [pair("N", number, 0.3 + number / 1000) for number in range(31)]
    shown = [row for row in choose(rows) if row["dataset"] in "MN"]
    assert {row["dataset"] for row in shown} == {"M", "N"}
    own = [row for row in shown if row["shown_as"] == ["dataset"] and row["dataset"] == "N"]
    assert {row["sample_id"] for row in own} <= {"N/000", "N/015", "N/030"}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("ABC"), st.sampled_from([0.0, 0.1, 0.5, 0.5, 0.9, 1.0])), max_size=90),
    st.randoms(use_true_random=False),
)
def test_the_choice_does_not_hang_on_the_order_and_shows_no_pair_twice(
    made: list[tuple[str, float]], order: random.Random
):
    rows = [pair(dataset, number, dice) for number, (dataset, dice) in enumerate(made)]
    chosen = choose(rows, gallery=5)
    shuffled = list(rows)
    order.shuffle(shuffled)
    assert keys(choose(shuffled, gallery=5)) == keys(chosen)
    assert len(set(keys(chosen))) == len(chosen)
    found = parts(chosen)
    assert {row["dataset"] for row in chosen} == {row["dataset"] for row in rows}
    assert len(found.get("best", [])) == min(5, -(-len(rows) // 3))
    if len(rows) >= 3:
        lowest, highest = max(row["dice"] for row in found["worst"]), min(row["dice"] for row in found["best"])
        others = [row["dice"] for row in rows if (row["sample_id"], "x") not in keys(found["worst"] + found["best"])]
        assert all(lowest <= dice <= highest for dice in others)
    if len(rows) <= 15:
        assert len(chosen) == len(rows)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 59, 60, 61])
def test_few_pairs_are_all_shown_once(count: int):
    rows = [pair("A", number, number / 100) for number in range(count)]
    chosen = [row for row in choose(rows) if row["shown_as"] != ["dataset"]]
    assert len(set(keys(chosen))) == min(count, 60)
