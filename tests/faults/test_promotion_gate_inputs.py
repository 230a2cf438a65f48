"""Gate inputs that are missing, no number, regressed, stale or unlicensed: blocked, with the reason named."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from registry.gate import GateReport, decide
from tests.registry import samples

RULES: dict[str, Any] = {
    "min_dice_text": 0.25,
    "min_gain_over_start": 0.05,
    "max_score_absent": 0.25,
    "max_loss_per_dataset": 0.05,
    "max_false_alarm_rate": 0.5,
    "no_significant_loss": {"tolerance": 0.02, "min_groups": 5, "few_groups_tolerance": 0.2},
    "min_dice": {"dataset": {"BUSI": 0.3}, "modality": {"CT": 0.2}, "concept": {"polyp": 0.4}},
    "leakage_clean": True,
    "licence": "any",
}

Given = dict[str, Any]


def given() -> Given:
    """Everything as it should be."""
    figures = samples.evaluation("a" * 64, "b" * 64)
    figures["presence"] = {"false_alarm_rate": 0.1}
    paired = [
        {"level": "concept", "name": name, "external": False, "before": 0.5, "after": 0.55, "difference": 0.05,
         "interval": [0.01, 0.09], "groups": 12, "pairs": 40, "missing": 0}
        for name in ("polyp", "liver")
    ]  # fmt: skip
    return {
        "evaluation": figures,
        "champion": samples.evaluation("c" * 64, "b" * 64),
        "lineage": {
            "data_version": "data-v2",
            "current_data_version": "data-v2",
            "manifest_digests": dict(figures["manifest_digests"]),
            "datasets": samples.datasets(),
            "strictest_licence": "CC-BY-4.0",
            "commercial_use": "yes",
        },
        "comparison": paired,
        "leakage": {"ok": True, "matrix": []},
    }


def judge(inputs: Given, **rules: Any) -> GateReport:
    return decide(
        inputs["evaluation"],
        inputs["champion"],
        {**RULES, **rules},
        lineage=inputs["lineage"],
        comparison=inputs["comparison"],
        leakage=inputs["leakage"],
    )


def summary(name: str, value: Any) -> Callable[[Given], None]:
    return lambda inputs: inputs["evaluation"]["summary"].update({name: value})


def figure(dataset: str, value: Any) -> Callable[[Given], None]:
    return lambda inputs: inputs["evaluation"]["datasets"][dataset].update(dice_text_after=value)


def regressed(inputs: Given) -> None:
    inputs["comparison"][0].update(after=0.4, difference=-0.1, interval=[-0.15, -0.05])


def lineage(**changes: Any) -> Callable[[Given], None]:
    return lambda inputs: inputs["lineage"].update(changes)


def unlicensed(inputs: Given) -> None:
    inputs["lineage"]["datasets"][4]["licence"] = None  # BUSI


CASES: list[tuple[str, Callable[[Given], None], str, str]] = [
    ("metric missing", summary("dice_text_after", None), "min_dice_text", "dice_text_after was not measured"),
    ("metric NaN", summary("score_absent", math.nan), "max_score_absent", "score_absent was not measured"),
    ("metric infinite", summary("dice_text_before", math.inf), "min_gain_over_start", "dice_text_before was not"),
    ("false alarms missing", lambda i: i["evaluation"].pop("presence"), "max_false_alarm_rate", "false_alarm_rate"),
    ("a dataset's metric NaN", figure("BUSI", math.nan), "max_loss_per_dataset", "BUSI"),
    ("a dataset's metric missing", figure("DSB2018", None), "max_loss_per_dataset", "DSB2018"),
    ("one concept regressed", regressed, "no_significant_loss", "concept polyp"),
    ("never compared", lambda i: i.update(comparison=None), "no_significant_loss", "compared on no pair"),
    ("stale data version", lineage(current_data_version="data-v3"), "current_data_version", "data-v3"),
    ("leakage found", lambda i: i.update(leakage={"ok": False, "matrix": []}), "leakage_clean", "both sides"),
    ("leakage not looked for", lambda i: i.update(leakage=None), "leakage_clean", "no leakage report"),
    ("licence missing", unlicensed, "licence", "BUSI"),
]


def test_as_it_should_be_it_passes_and_every_rule_says_so():
    report = judge(given())
    assert report.passed, report.failures
    assert {rule.name for rule in report.rules} == {"current_data_version", "still_measured", *RULES}


@pytest.mark.parametrize(("change", "rule", "word"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_it_blocks_with_the_reason_named(change: Callable[[Given], None], rule: str, word: str):
    assert len(CASES) == 12
    inputs = given()
    change(inputs)
    report = judge(inputs)
    assert report.verdict == "block"
    assert any(word in one.explanation for one in report.failures if one.name == rule), report.failures


def test_minimums_by_name_block_below_and_where_nothing_was_measured():
    for level, name, least in (("dataset", "BUSI", 0.35), ("modality", "CT", 0.34), ("concept", "polyp", 0.5)):
        [failure] = judge(given(), min_dice={level: {name: least}}).failures
        assert name in failure.subject
        [failure] = judge(given(), min_dice={level: {"typo": 0.1}}).failures
        assert "typo was not measured" in failure.explanation


def test_a_licence_limit_asks_what_all_licences_say():
    assert judge(given(), licence="commercial").passed
    inputs = given()
    inputs["lineage"]["commercial_use"] = "unknown"
    [failure] = judge(inputs, licence="commercial").failures
    assert failure.name == "licence"
    inputs["lineage"].pop("strictest_licence")
    assert not judge(inputs).passed
