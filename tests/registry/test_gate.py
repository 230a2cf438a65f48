from __future__ import annotations

import json
import math
from typing import Any

import pytest

from infra.errors import UsageError
from registry.gate import GateReport, decide
from tests.registry import samples
from tests.registry.conftest import RULES

LINEAGE = {"data_version": "data-v2", "current_data_version": "data-v2"}


def judge(evaluation: dict[str, Any], champion: dict[str, Any] | None = None, **lineage: Any) -> GateReport:
    return decide(evaluation, champion, RULES, lineage={**LINEAGE, **lineage})


def figures(**change: float) -> dict[str, Any]:
    return samples.evaluation("a" * 64, "b" * 64, change=change)


def test_a_good_first_model_passes_and_every_rule_gives_its_numbers():
    report = judge(figures())
    assert report.passed
    assert {rule.name for rule in report.rules} == {"current_data_version", *RULES}
    for rule in report.rules:
        assert rule.ok
        assert rule.explanation
    assert GateReport.from_dict(json.loads(json.dumps(report.to_dict(), allow_nan=False))) == report


@pytest.mark.parametrize("found", [None, math.nan, math.inf, "0.9", True])
@pytest.mark.parametrize("figure", ["dice_text_after", "dice_text_before", "score_absent"])
def test_a_figure_that_is_missing_or_no_number_blocks_and_is_named(figure: str, found: Any):
    evaluation = figures()
    evaluation["summary"][figure] = found
    report = judge(evaluation)
    assert report.verdict == "block"
    assert any(f"summary.{figure} was not measured" in rule.explanation for rule in report.failures)
    json.dumps(report.to_dict(), allow_nan=False)


def test_no_summary_at_all_blocks():
    evaluation = figures()
    del evaluation["summary"]
    assert len(judge(evaluation).failures) == 3


def test_a_dataset_that_lost_against_the_champion_blocks_and_is_named_with_both_figures():
    report = judge(figures(BUSI=-0.08, DSB2018=0.2), figures())
    [failure] = report.failures
    assert (failure.name, failure.subject) == ("max_loss_per_dataset", "BUSI")
    assert failure.value == pytest.approx(0.08)
    assert "0.345" in failure.explanation
    assert "0.265" in failure.explanation


def test_a_loss_on_the_limit_passes_and_just_beyond_it_blocks():
    assert judge(figures(BUSI=-0.05), figures()).passed
    assert not judge(figures(BUSI=-0.0501), figures()).passed


def test_a_dataset_that_the_champion_had_and_the_candidate_did_not_measure_blocks():
    evaluation = figures()
    evaluation["datasets"]["BUSI"]["dice_text_after"] = None
    [failure] = judge(evaluation, figures()).failures
    assert failure.subject == "BUSI"


def test_nothing_in_common_with_the_champion_blocks():
    evaluation = figures()
    evaluation["datasets"] = {"other": evaluation["datasets"]["BUSI"]}
    failures = judge(evaluation, figures()).failures
    assert {failure.name for failure in failures} == {"max_loss_per_dataset", "still_measured"}


@pytest.mark.parametrize(
    ("figure", "value", "rule"),
    [
        ("dice_text_after", 0.24, "min_dice_text"),
        ("dice_text_before", 0.45, "min_gain_over_start"),
        ("score_absent", 0.26, "max_score_absent"),
    ],
)
def test_each_limit_blocks(figure: str, value: float, rule: str):
    evaluation = figures()
    evaluation["summary"][figure] = value
    assert rule in {failure.name for failure in judge(evaluation).failures}


def test_a_start_from_a_registered_version_need_not_be_outdone_by_much_but_the_champion_must_not_be_lost_against():
    evaluation = figures(BUSI=0.01)
    evaluation["summary"]["dice_text_before"] = evaluation["summary"]["dice_text_after"] - 0.001
    champion, ours, own = figures(), {"version": "segfoundry-demo/3"}, {"version": None}

    [failure] = judge(evaluation, champion, parent=own).failures
    assert failure.name == "min_gain_over_start"
    report = judge(evaluation, champion, parent=ours)
    assert report.passed
    [row] = [rule for rule in report.rules if rule.name == "min_gain_over_start"]
    assert row.value is None
    assert "started from segfoundry-demo/3" in row.explanation
    worse = {**evaluation, "datasets": figures(BUSI=-0.08)["datasets"]}
    assert [rule.subject for rule in judge(worse, champion, parent=ours).failures] == ["BUSI"]
    # without a champion nothing else would judge it
    assert not judge(evaluation, parent=ours).passed


def test_an_old_data_version_blocks_and_other_manifests_block():
    [failure] = judge(figures(), current_data_version="data-v3").failures
    assert "data-v3" in failure.explanation
    [failure] = judge(figures(), data_version=None, current_data_version=None).failures
    assert "no data version" in failure.explanation
    [failure] = judge(figures(), manifest_digests={"BUSI": "0" * 64}).failures
    assert "BUSI" in failure.explanation


@pytest.mark.parametrize("rules", [{}, {"min_dice": 0.2}, {"min_dice_text": "high"}, {"min_dice_text": math.nan}])
def test_rules_that_cannot_be_applied_are_a_usage_error(rules: dict[str, Any]):
    with pytest.raises(UsageError, match=r"params\.yaml, gate"):
        decide(figures(), None, rules, lineage=LINEAGE)
