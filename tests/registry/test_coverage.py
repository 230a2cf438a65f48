"""Nothing that the champion was measured for drops out of the gate without a word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra.errors import UsageError
from infra.params import check_params
from pipelines.plan import project_params
from registry.coverage import Part, by_figures, coverage, still_measured
from registry.gate import GateReport, decide
from registry.judging import judge
from registry.promote import promote
from registry.store import RegistryStore
from tests.registry import samples
from tests.registry.conftest import MODEL, RULES
from tests.registry.light import GROUPS, Light
from tests.registry.test_comparison import rows, write

LOSS = {"tolerance": 0.02, "min_groups": 5, "few_groups_tolerance": 0.2}
LINEAGE = {"data_version": "data-v1"}


def cased(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """With the case of each row: one of a patient."""
    return [{**one, "case_id": one["group_id"].replace("-g", "-c")} for one in found]


def measured(folder: Path, name: str, *parts: list[dict[str, Any]]) -> Path:
    return write(folder, name, *map(cased, parts))


def verdicts(parts: list[Part], *allowed: str) -> dict[str, bool]:
    return {one.subject: one.ok for one in still_measured(parts, allowed, "champion v3")[0]}


def test_a_dataset_a_renamed_concept_and_other_sample_ids_are_each_named(tmp_path: Path):
    liver, polyp = rows("A", "liver", [0.6] * 3), rows("B", "polyp", [0.6] * 4)
    both = rows("C", "nucleus", [0.6] * 2), rows("C", "cell", [0.6] * 2)
    champion = measured(tmp_path, "champion", liver, polyp, *both)
    candidate = measured(
        tmp_path,
        "candidate",
        [{**one, "sample_id": f"{one['sample_id']}-v2"} for one in polyp],
        both[0],
        rows("C", "cell body", [0.6] * 2),
    )
    parts = coverage(candidate, champion, {})
    assert parts == [
        Part("A", "liver", 6, 0, 0), Part("B", "polyp", 8, 8, 0),
        Part("C", "cell", 4, 0, 0), Part("C", "nucleus", 4, 4, 4),
    ]  # fmt: skip
    results, excused = still_measured(parts, [], "champion v3")
    assert {one.subject: one.ok for one in results} == {"A": False, "B": False, "C/cell": False}
    assert results[0].explanation.startswith("A: was measured for champion v3 (6 pairs), is not any more. ")
    assert "8 others, none in common" in results[1].explanation
    assert "gate.gone" in results[2].explanation
    assert excused == frozenset()
    # a person says so
    results, excused = still_measured(parts, ["A", "B/polyp", "C/cell"], "champion v3")
    assert all(one.ok for one in results)
    assert [one.subject for one in results] == ["A/liver", "B/polyp", "C/cell"]
    assert "gate.gone names C/cell" in results[2].explanation
    assert excused == {"A", "B"}
    # where both were measured in one call, the pairs are in common whatever they were called before
    assert verdicts(coverage(candidate, champion, {}, together=True)) == {"A": False, "C/cell": False}


def test_a_pair_without_a_number_is_not_measured(tmp_path: Path):
    champion = measured(tmp_path, "champion", rows("A", "liver", [0.6, 0.6]), rows("A", "polyp", [None]))
    candidate = measured(tmp_path, "candidate", rows("A", "liver", [None, float("nan")]))
    assert coverage(candidate, champion, {}) == [Part("A", "liver", 4, 0, 0)]


def test_what_is_gone_because_all_of_it_was_withdrawn_needs_nobody(tmp_path: Path):
    champion = measured(
        tmp_path, "champion", rows("A", "liver", [0.6] * 3), rows("B", "polyp", [0.6] * 2), rows("B", "ulcer", [0.6])
    )
    candidate = measured(tmp_path, "candidate", rows("B", "ulcer", [0.6]))
    every = {"A": ["A-c0", "A-g1", "A-c2"], "B": {"B-g0", "B-c1"}}  # by case and by patient
    parts = coverage(candidate, champion, every)
    results, excused = still_measured(parts, [], "champion v3")
    assert [(one.subject, one.ok) for one in results] == [("A/liver", True), ("B/polyp", True)]
    assert "withdrawn" in results[0].explanation
    assert excused == {"A"}
    # one patient of it was not withdrawn, or another dataset's patients have the same names
    assert verdicts(coverage(candidate, champion, {**every, "A": ["A-c0", "A-c2"]}))["A"] is False
    assert verdicts(coverage(candidate, champion, {"B": every["A"]}))["A"] is False


def test_without_rows_the_names_in_the_evaluations_tell():
    champion = {"datasets": {"A": {"concepts": {"liver": {"pairs": 6}, "spleen": {"pairs": 0}}}}}
    assert by_figures({}, champion) == [Part("A", "liver", 6, 0, 0)]
    assert verdicts(by_figures(champion, champion)) == {"": True}
    assert verdicts(by_figures({}, champion), "A") == {"A/liver": True}


def test_where_all_is_gone_with_a_reason_the_rules_that_compare_have_nothing_to_say():
    champion = samples.evaluation("c" * 64, "b" * 64)
    evaluation = samples.evaluation("a" * 64, "b" * 64)
    evaluation["datasets"] = {"New": evaluation["datasets"]["BUSI"]}

    def decided(gone: list[str]) -> GateReport:
        rules = {"max_loss_per_dataset": 0.05, "no_significant_loss": LOSS, "gone": gone}
        return decide(evaluation, champion, rules, lineage=LINEAGE, comparison=[])

    names = [name for name, entry in champion["datasets"].items() if entry["samples"]]
    assert decided(names).passed
    assert {one.name for one in decided(names[1:]).failures} == {
        "still_measured", "max_loss_per_dataset", "no_significant_loss",
    }  # fmt: skip


def test_a_dataset_whose_test_cases_were_all_withdrawn_is_no_loss():
    champion, evaluation = (samples.evaluation(one * 64, "b" * 64) for one in "ca")
    evaluation["datasets"]["BUSI"].update(dice_text_after=None, samples=0, concepts={})
    rules = {"max_loss_per_dataset": 0.05}
    parts = by_figures(evaluation, champion)
    assert not decide(evaluation, champion, rules, lineage=LINEAGE, coverage=parts).passed
    gone = [Part(one.dataset, one.concept, one.pairs, one.ours, one.shared, one.dataset == "BUSI") for one in parts]
    assert decide(evaluation, champion, rules, lineage=LINEAGE, coverage=gone).passed


def judged(store: RegistryStore, made: Light, gone: tuple[str, ...] = (), **options: Any) -> GateReport:
    rules = {**RULES, "no_significant_loss": LOSS, "gone": list(gone)}
    return judge(store, MODEL, made.version(store, MODEL), rules, current_data_version="data-v1", **options)


def test_the_gate_of_a_registered_version_asks_for_all_that_the_champion_has(store: RegistryStore):
    first = Light("first")
    assert "still_measured" not in {one.name for one in judged(store, first).rules}
    promote(store, MODEL, first.version(store, MODEL), gate=judged(store, first), actor="ann", reason="nightly")
    better = Light("better", without=("BUSI",), renamed={"polyp": "colorectal polyp"})
    failures = judged(store, better).failures
    assert [(one.name, one.subject) for one in failures] == [
        ("still_measured", "BUSI"),
        ("still_measured", "Kvasir-SEG"),
    ]
    assert f"was measured for champion v1 ({2 * GROUPS} pairs)" in failures[0].explanation
    assert judged(store, better, ("BUSI", "Kvasir-SEG/polyp")).passed

    cases = {"BUSI": [f"BUSI-c{number}" for number in range(GROUPS)]}
    assert [one.subject for one in judged(store, better, withdrawn=cases).failures] == ["Kvasir-SEG"]


@pytest.mark.parametrize("gone", ["BUSI", ["/"], [3], None])
def test_a_list_that_is_none_is_refused(gone: Any):
    with pytest.raises(UsageError, match=r"gate\.gone"):
        decide(samples.evaluation("a" * 64, "b" * 64), None, {"gone": gone}, lineage=LINEAGE)
    params = project_params()
    with pytest.raises(UsageError, match=r"gate\.gone"):
        check_params({**params, "gate": {**params["gate"], "gone": gone}}, "params.yaml")


def test_every_part_of_a_hundred_thousand_rows_is_told(tmp_path: Path):
    count = 100_000
    names = np.arange(count)
    table = pa.table(
        {
            "sample_id": [f"A/{number}" for number in names], "dataset": ["A"] * count, "case_id": names.astype(str),
            "group_id": (names // 4).astype(str), "concept": [f"c{number % 20}" for number in names],
            "prompt": ["text"] * count, "model": ["after"] * count, "present": [True] * count, "dice": [0.5] * count,
        }
    )  # fmt: skip
    pq.write_table(table, tmp_path / "rows.parquet")
    parts = coverage(tmp_path / "rows.parquet", tmp_path / "rows.parquet", {"A": set(names.astype(str))})
    assert len(parts) == 20
    assert all(one.shared == one.pairs and one.withdrawn for one in parts)
