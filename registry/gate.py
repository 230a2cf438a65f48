"""The gate: does a candidate deserve to serve? Pure: figures and rules in, verdict with numbers out.

A figure that is missing or not a number blocks: what was not measured cannot be promised.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from infra.errors import UsageError
from infra.storage import digest_of

# 0.30 - 0.25 is 0.04999… in floating point: a figure on the limit passes.
_TOLERANCE = 1e-9

DATA_RULE = "current_data_version"
RULES = ("min_dice_text", "min_gain_over_start", "max_score_absent", "max_loss_per_dataset")


@dataclass(frozen=True)
class RuleResult:
    """One rule with its numbers. `subject` is the dataset for a rule that looks at each."""

    name: str
    value: float | str | None
    limit: float | str | None
    ok: bool
    explanation: str
    subject: str = ""


@dataclass(frozen=True)
class GateReport:
    """The verdict, every rule's result, and what was compared with what."""

    verdict: str  # "pass" or "block"
    rules: tuple[RuleResult, ...]
    weights_sha256: str
    champion_weights_sha256: str | None

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
) -> GateReport:
    """Judge an `evaluation.json` by the `gate` section of `params.yaml`.

    `champion_evaluation` is None where nothing has been promoted yet. Rules that the section does not
    name are not applied; that the data version is current is always asked. Raises UsageError for a rule
    that does not exist or a limit that is no number.
    """
    limits = _checked(rules)
    results = [_data_current(evaluation, lineage)]
    summary = evaluation.get("summary") or {}
    for name, limit in limits.items():
        if name == "max_loss_per_dataset":
            results += _losses(evaluation, champion_evaluation, limit)
        else:
            results.append(_SUMMARY_RULES[name](summary, limit))
    return GateReport(
        verdict="pass" if all(rule.ok for rule in results) else "block",
        rules=tuple(results),
        weights_sha256=str(evaluation.get("weights_sha256") or ""),
        champion_weights_sha256=champion_evaluation.get("weights_sha256") if champion_evaluation else None,
    )


def _checked(rules: dict[str, Any]) -> dict[str, float]:
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
        if _number(limit) is None:
            msg = f"params.yaml, gate.{name}: expected a number, found {limit!r}"
            raise UsageError(msg)
    return {name: float(limit) for name, limit in rules.items()}


def _number(value: Any) -> float | None:
    """The value as a finite float, else None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def _missing(name: str, limit: float, figure: str, found: Any, subject: str = "") -> RuleResult:
    shown = "nothing" if found is None else str(found)
    text = f"{figure} was not measured: expected a number, found {shown}. What is not measured blocks."
    return RuleResult(name, None, limit, False, text, subject)


def _min_dice(summary: dict[str, Any], limit: float) -> RuleResult:
    found = summary.get("dice_text_after")
    value = _number(found)
    if value is None:
        return _missing("min_dice_text", limit, "summary.dice_text_after", found)
    ok = value >= limit - _TOLERANCE
    text = f"Mean Dice with text prompts is {value:.3f}, {'at least' if ok else 'below'} {limit:.3f}."
    return RuleResult("min_dice_text", value, limit, ok, text)


def _min_gain(summary: dict[str, Any], limit: float) -> RuleResult:
    for name in ("dice_text_after", "dice_text_before"):
        if _number(summary.get(name)) is None:
            return _missing("min_gain_over_start", limit, f"summary.{name}", summary.get(name))
    gain = float(summary["dice_text_after"]) - float(summary["dice_text_before"])
    ok = gain >= limit - _TOLERANCE
    text = f"Training moved the mean Dice by {gain:+.3f}, {'at least' if ok else 'less than'} {limit:+.3f}."
    return RuleResult("min_gain_over_start", gain, limit, ok, text)


def _max_absent(summary: dict[str, Any], limit: float) -> RuleResult:
    found = summary.get("score_absent")
    value = _number(found)
    if value is None:
        return _missing("max_score_absent", limit, "summary.score_absent", found)
    ok = value <= limit + _TOLERANCE
    side = "at most" if ok else "above"
    text = f"Concepts that are not in the picture score {value:.3f} on average, {side} {limit:.3f}."
    return RuleResult("max_score_absent", value, limit, ok, text)


_SUMMARY_RULES: dict[str, Callable[[dict[str, Any], float], RuleResult]] = {
    "min_dice_text": _min_dice,
    "min_gain_over_start": _min_gain,
    "max_score_absent": _max_absent,
}


def _losses(evaluation: dict[str, Any], champion: dict[str, Any] | None, limit: float) -> list[RuleResult]:
    """One result for each dataset that both were evaluated on; one that says so where there is none."""
    name = "max_loss_per_dataset"
    if champion is None:
        return [RuleResult(name, None, limit, True, "There is no champion yet: nothing to lose against.")]
    ours, theirs = evaluation.get("datasets") or {}, champion.get("datasets") or {}
    shared = sorted(set(ours) & set(theirs))
    if not shared:
        text = "Candidate and champion were evaluated on no dataset in common: evaluate the champion on this data."
        return [RuleResult(name, None, limit, False, text)]
    return [_loss(name, dataset, ours[dataset], theirs[dataset], limit) for dataset in shared]


def _loss(name: str, dataset: str, ours: dict[str, Any], theirs: dict[str, Any], limit: float) -> RuleResult:
    before, after = theirs.get("dice_text_after"), ours.get("dice_text_after")
    if before is None and after is None:
        return RuleResult(name, None, limit, True, f"{dataset} has no test cases for either model.", dataset)
    if before is None:
        return RuleResult(
            name, None, limit, True, f"{dataset}: the champion had no test cases to compare with.", dataset
        )
    was, is_now = _number(before), _number(after)
    if was is None:
        return _missing(name, limit, f"the champion's datasets.{dataset}.dice_text_after", before, dataset)
    if is_now is None:
        return _missing(name, limit, f"datasets.{dataset}.dice_text_after", after, dataset)
    loss = was - is_now
    ok = loss <= limit + _TOLERANCE
    text = (
        f"{dataset}: the champion has {was:.3f}, the candidate {is_now:.3f} ({is_now - was:+.3f}); "
        f"{'within' if ok else 'beyond'} the tolerated loss of {limit:.3f}."
    )
    return RuleResult(name, loss, limit, ok, text, dataset)


def _data_current(evaluation: dict[str, Any], lineage: dict[str, Any]) -> RuleResult:
    """The model was trained and evaluated on the newest data version, and on the same manifests."""
    used, current = lineage.get("data_version"), lineage.get("current_data_version") or lineage.get("data_version")
    if not used:
        return RuleResult(DATA_RULE, None, current, False, "The lineage names no data version: register with one.")
    if used != current:
        text = f"Trained on {used}; the current data version is {current}: train again."
        return RuleResult(DATA_RULE, used, current, False, text)
    trained, evaluated = lineage.get("manifest_digests") or {}, evaluation.get("manifest_digests") or {}
    other = sorted(name for name in set(trained) & set(evaluated) if trained[name] != evaluated[name])
    if other:
        text = f"Evaluated on other manifests than trained on: {', '.join(other)}. Evaluate again on {used}."
        return RuleResult(DATA_RULE, used, current, False, text)
    return RuleResult(DATA_RULE, used, current, True, f"Trained and evaluated on the current data version {used}.")
