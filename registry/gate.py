"""The gate: does a candidate deserve to serve? Pure: figures and rules in, verdict with numbers out.

A figure that is missing or not a number blocks: what was not measured cannot be promised. What each rule asks
is in `registry.gate_rules` and in docs/registry.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from infra.errors import UsageError
from infra.storage import digest_of
from registry.coverage import Part, by_figures, still_measured
from registry.gate_rules import DATA_RULE, LEVELS, LIMITS, RULES, Evidence, RuleResult, apply_rule, data_current, number

__all__ = ["DATA_RULE", "RULES", "GateReport", "RuleResult", "decide"]

_SWITCHES = ("approval", "leakage_clean")


@dataclass(frozen=True)
class GateReport:
    """The verdict, every rule's result, and what was compared with what."""

    verdict: str  # "pass" or "block"
    rules: tuple[RuleResult, ...]
    weights_sha256: str
    champion_weights_sha256: str | None
    approval: bool = False  # a person must approve what passed

    @property
    def passed(self) -> bool:
        """Whether the candidate may be promoted."""
        return self.verdict == "pass"

    @property
    def failures(self) -> tuple[RuleResult, ...]:
        """The rules that block."""
        return tuple(rule for rule in self.rules if not rule.ok)

    @property
    def digest(self) -> str:
        """The identity of this report, which the ledger quotes."""
        return digest_of(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; no NaN, which is no JSON."""
        return {**asdict(self), "rules": [asdict(rule) for rule in self.rules]}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> GateReport:
        """The report that `to_dict` wrote."""
        return cls(**{**value, "rules": tuple(RuleResult(**rule) for rule in value["rules"])})


def decide(
    evaluation: dict[str, Any],
    champion_evaluation: dict[str, Any] | None,
    rules: dict[str, Any],
    *,
    lineage: dict[str, Any],
    comparison: Sequence[dict[str, Any]] | None = None,
    leakage: dict[str, Any] | None = None,
    coverage: Sequence[Part] | None = None,
    champion_version: int | None = None,
) -> GateReport:
    """Judge an `evaluation.json` by the `gate` section of `params.yaml`.

    `champion_evaluation` is None where nothing has been promoted yet. `comparison` are paired differences against
    the champion (`registry.comparison`), `leakage` what `preprocessing.leakage` found in the current data; where a
    rule asks for one that is not given, it blocks. `coverage` is what the champion was measured for
    (`registry.coverage`); without it the names in the two evaluations tell. Rules that the section does not name are
    not applied; that the data version is current, and that what the champion was measured for still is, is always
    asked. Raises UsageError for a rule that does not exist or a limit that is none.
    """
    limits = _checked(rules)
    evidence = Evidence(evaluation, champion_evaluation, lineage, comparison, leakage)
    results = [data_current(evidence)]
    if champion_evaluation is not None:
        parts = by_figures(evaluation, champion_evaluation) if coverage is None else coverage
        champion = "the champion" if champion_version is None else f"champion v{champion_version}"
        rows, excused = still_measured(parts, limits.get("gone", ()), champion)
        nothing_left = bool(parts) and {one.dataset for one in parts} <= excused
        evidence = replace(evidence, excused=excused, nothing_left=nothing_left)
        results += rows
    for name, limit in limits.items():
        results += apply_rule(name, limit, evidence)
    return GateReport(
        verdict="pass" if all(rule.ok for rule in results) else "block",
        rules=tuple(results),
        weights_sha256=str(evaluation.get("weights_sha256") or ""),
        champion_weights_sha256=champion_evaluation.get("weights_sha256") if champion_evaluation else None,
        approval=bool(limits.get("approval", False)),
    )


def _checked(rules: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(rules, dict) or not rules:
        msg = f"params.yaml, gate: expected rules out of {', '.join(RULES)}, found {rules!r}"
        raise UsageError(msg)
    unknown = sorted(set(rules) - set(RULES))
    if unknown:
        msg = (
            f"params.yaml, gate: expected rules out of {', '.join(RULES)}, found {', '.join(unknown)}; correct the name"
        )
        raise UsageError(msg)
    for name, limit in rules.items():
        expected = _expected(name, limit)
        if expected:
            msg = f"params.yaml, gate.{name}: expected {expected}, found {limit!r}"
            raise UsageError(msg)
    return rules


def _expected(name: str, limit: Any) -> str:
    """What a limit should have been; nothing where it is that."""
    if name in _SWITCHES:
        return "" if isinstance(limit, bool) else "true or false"
    if name == "licence":
        return "" if limit in LIMITS else f"one of {', '.join(LIMITS)}"
    if name == "gone":
        ok = isinstance(limit, (list, tuple)) and all(isinstance(one, str) and one.strip("/ ") for one in limit)
        return "" if ok else "a list of datasets or DATASET/CONCEPT"
    if name == "min_dice":
        ok = isinstance(limit, dict) and set(limit) <= set(LEVELS)
        ok = ok and all(isinstance(one, dict) and None not in map(number, one.values()) for one in limit.values())
        return "" if ok else f"names with their minimum by level ({', '.join(LEVELS)})"
    if name == "no_significant_loss":
        needed = {"tolerance", "min_groups", "few_groups_tolerance"}
        ok = isinstance(limit, dict) and needed <= set(limit) <= {*needed, "levels"}
        ok = (
            ok
            and None not in [number(limit[key]) for key in needed]
            and set(limit.get("levels", LEVELS)) <= set(LEVELS)
        )
        return "" if ok else f"{', '.join(sorted(needed))}, each a number, and levels out of {', '.join(LEVELS)}"
    return "" if number(limit) is not None else "a number"
