"""Candidate against champion on the same pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from registry.comparison import compare, measured_together
from registry.gate import decide
from tests.registry import samples

RULE = {"tolerance": 0.02, "min_groups": 5, "few_groups_tolerance": 0.2, "levels": ["dataset", "modality", "concept"]}
LINEAGE = {"data_version": "data-v1"}


def rows(dataset: str, concept: str, dice: list[float | None], *, modality: str = "CT") -> list[dict[str, Any]]:
    """A patient for each value, with two slices of it, and a box row and an absent row that must not count."""
    found = []
    for number, value in enumerate(dice):
        for part in ("z1", "z2"):
            one = {"sample_id": f"{dataset}/{number}/{part}", "dataset": dataset, "modality": modality,
                   "group_id": f"{dataset}-g{number}", "concept": concept, "prompt": "text", "model": "after",
                   "present": True, "dice": value}  # fmt: skip
            found += [one, {**one, "prompt": "box", "dice": 1.0}, {**one, "model": "before", "dice": 0.0}]
            found += [{**one, "concept": f"no {concept}", "present": False, "dice": 0.0}]
    return found


def write(folder: Path, name: str, *parts: list[dict[str, Any]]) -> Path:
    path = folder / f"{name}.parquet"
    pq.write_table(pa.Table.from_pylist([row for part in parts for row in part]), path)
    return path


def named(found: list[dict[str, Any]], level: str, name: str) -> dict[str, Any]:
    [row] = [one for one in found if (one["level"], one["name"], one["external"]) == (level, name, False)]
    return row


def judge(found: list[dict[str, Any]] | None) -> dict[str, bool]:
    figures = samples.evaluation("a" * 64, "b" * 64)
    champion = samples.evaluation("c" * 64, "b" * 64)
    report = decide(figures, champion, {"no_significant_loss": RULE}, lineage=LINEAGE, comparison=found)
    return {rule.subject: rule.ok for rule in report.rules if rule.name == "no_significant_loss"}


def test_a_concept_that_every_patient_lost_is_named_and_one_that_wavers_is_not(tmp_path: Path):
    noise = np.random.default_rng(3).normal(0, 0.15, 20)
    base = [0.6] * 20
    champion = write(tmp_path, "champion", rows("A", "liver", base), rows("B", "polyp", base, modality="endoscopy"))
    wavers = [0.6 + float(one) for one in noise - noise.mean() - 0.03]  # worse on average, by less than chance
    candidate = write(
        tmp_path, "candidate", rows("A", "liver", [0.5] * 20), rows("B", "polyp", wavers, modality="endoscopy")
    )
    found = compare(candidate, champion)
    liver, polyp = named(found, "concept", "liver"), named(found, "concept", "polyp")
    assert liver["difference"] == pytest.approx(-0.1)
    assert liver["interval"] == pytest.approx([-0.1, -0.1])
    assert (liver["pairs"], liver["groups"], liver["missing"]) == (40, 20, 0)
    assert polyp["difference"] == pytest.approx(-0.03)
    assert polyp["interval"][0] < -0.03 < polyp["interval"][1]
    assert judge(found) == {
        "A": False, "B": True, "modality CT": False, "modality endoscopy": True,
        "concept liver": False, "concept polyp": True,
    }  # fmt: skip


def test_levels_above_a_dataset_count_each_dataset_once(tmp_path: Path):
    champion = write(tmp_path, "champion", rows("A", "liver", [0.5] * 30), rows("B", "liver", [0.5] * 6))
    candidate = write(tmp_path, "candidate", rows("A", "liver", [0.6] * 30), rows("B", "liver", [0.3] * 6))
    found = compare(candidate, champion)
    for level, name in (("all", ""), ("modality", "CT"), ("concept", "liver")):
        assert named(found, level, name)["difference"] == pytest.approx((0.1 - 0.2) / 2)


def test_few_patients_are_judged_by_the_difference_alone(tmp_path: Path):
    champion = write(tmp_path, "champion", rows("A", "liver", [0.6] * 3), rows("B", "polyp", [0.6] * 1))
    candidate = write(tmp_path, "candidate", rows("A", "liver", [0.45] * 3), rows("B", "polyp", [0.1] * 1))
    verdicts = judge(compare(candidate, champion))
    assert verdicts["concept liver"]
    assert not verdicts["concept polyp"]


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_a_pair_without_a_number_is_missing_and_blocks(tmp_path: Path, value: float | None):
    champion = write(tmp_path, "champion", rows("A", "liver", [0.6] * 6))
    candidate = write(tmp_path, "candidate", rows("A", "liver", [0.7] * 5 + [value]))
    found = compare(candidate, champion)
    assert named(found, "concept", "liver")["missing"] == 2
    assert not judge(found)["concept liver"]


def test_what_left_the_data_is_not_held_against_the_candidate_but_what_it_skipped_is(tmp_path: Path):
    champion = write(tmp_path, "champion", rows("A", "liver", [0.6] * 6))
    candidate = write(tmp_path, "candidate", rows("A", "liver", [0.6] * 5))
    assert judge(compare(candidate, champion))["concept liver"]  # another version of A: one patient was withdrawn
    assert not judge(compare(candidate, champion, same_data=["A"]))["concept liver"]


def test_nothing_to_compare_blocks(tmp_path: Path):
    champion = write(tmp_path, "champion", rows("A", "liver", [0.6] * 6))
    candidate = write(tmp_path, "candidate", rows("B", "liver", [0.6] * 6))
    assert compare(candidate, champion) == []
    assert judge([]) == {"": False}
    assert judge(None) == {"": False}


def test_external_sets_stand_apart(tmp_path: Path):
    champion = write(tmp_path, "champion", rows("A", "liver", [0.6] * 6), rows("X", "liver", [0.6] * 6))
    candidate = write(tmp_path, "candidate", rows("A", "liver", [0.7] * 6), rows("X", "liver", [0.3] * 6))
    found = compare(candidate, champion, external=["X"])
    assert named(found, "concept", "liver")["difference"] == pytest.approx(0.1)
    [outside] = [one for one in found if one["level"] == "concept" and one["external"]]
    assert outside["difference"] == pytest.approx(-0.3)


def test_an_evaluation_that_measured_both_is_taken_at_its_word():
    one = {"against": "champion", "level": "concept", "name": "liver", "metric": "dice_text"}
    other = {**one, "against": "start"}
    evaluation = {"against": {"weights_sha256": "c"}, "paired": [one, other]}
    assert measured_together(evaluation, "c") == [one]
    assert measured_together(evaluation, "d") is None
    assert measured_together({}, "c") is None
