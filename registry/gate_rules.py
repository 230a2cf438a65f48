"""What each rule of the gate asks, one function a rule: evidence and a limit in, results with numbers out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from preprocessing.schema.licences import LIMITS as LIMITS
from preprocessing.schema.licences import licence_name

# 0.30 - 0.25 is 0.04999… in floating point: a figure on the limit passes.
_TOLERANCE = 1e-9

DATA_RULE, COVERAGE_RULE = "current_data_version", "still_measured"
LEVELS = ("dataset", "modality", "concept")
_NOTHING_LEFT = f"All that the champion was measured for is gone, each with its reason: see {COVERAGE_RULE}."


@dataclass(frozen=True)
class RuleResult:
    """One rule with its numbers.

    `subject` is what a rule that looks at many looked at: a dataset by its name, the others with their level, such
    as "concept polyp". `numbers` is what the verdict was made from, beside value and limit.
    """

    name: str
    value: float | str | None
    limit: float | str | None
    ok: bool
    explanation: str
    subject: str = ""
    numbers: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Evidence:
    """What there is to judge by; `registry.gate.decide` says what each is."""

    evaluation: dict[str, Any]
    champion: dict[str, Any] | None
    lineage: dict[str, Any]
    comparison: Sequence[dict[str, Any]] | None = None
    leakage: dict[str, Any] | None = None
    excused: frozenset[str] = frozenset()  # datasets that are gone with a reason (`registry.coverage`)
    nothing_left: bool = False  # of all that the champion was measured for; each part is gone with a reason

    @property
    def summary(self) -> dict[str, Any]:
        """The evaluation's means."""
        return self.evaluation.get("summary") or {}


Rule = Callable[[Evidence, Any], "list[RuleResult]"]


def apply_rule(name: str, limit: Any, evidence: Evidence) -> list[RuleResult]:
    """The results of the rule `name`; none for what is not about the candidate, such as who must approve."""
    rule = _RULES.get(name)
    return rule(evidence, limit) if rule else []


def number(value: Any) -> float | None:
    """The value as a finite float, else None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def _missing(name: str, limit: float, figure: str, found: Any, subject: str = "") -> RuleResult:
    shown = "nothing" if found is None else str(found)
    text = f"{figure} was not measured: expected a number, found {shown}. What is not measured blocks."
    return RuleResult(name, None, limit, False, text, subject)


def _min_dice_text(evidence: Evidence, limit: float) -> list[RuleResult]:
    found = evidence.summary.get("dice_text_after")
    value = number(found)
    if value is None:
        return [_missing("min_dice_text", limit, "summary.dice_text_after", found)]
    ok = value >= limit - _TOLERANCE
    text = f"Mean Dice with text prompts is {value:.3f}, {'at least' if ok else 'below'} {limit:.3f}."
    return [RuleResult("min_dice_text", value, limit, ok, text)]


def _min_gain(evidence: Evidence, limit: float) -> list[RuleResult]:
    summary, parent = evidence.summary, (evidence.lineage.get("parent") or {}).get("version")
    if parent and evidence.champion is not None:
        # from a model that is good already little is to be gained: the bar would be higher with every champion
        text = f"Does not apply: training started from {parent}; the rules against the champion judge."
        return [RuleResult("min_gain_over_start", None, limit, True, text)]
    for name in ("dice_text_after", "dice_text_before"):
        if number(summary.get(name)) is None:
            return [_missing("min_gain_over_start", limit, f"summary.{name}", summary.get(name))]
    gain = float(summary["dice_text_after"]) - float(summary["dice_text_before"])
    ok = gain >= limit - _TOLERANCE
    text = f"Training moved the mean Dice by {gain:+.3f}, {'at least' if ok else 'less than'} {limit:+.3f}."
    return [RuleResult("min_gain_over_start", gain, limit, ok, text)]


def _max_absent(evidence: Evidence, limit: float) -> list[RuleResult]:
    found = evidence.summary.get("score_absent")
    value = number(found)
    if value is None:
        return [_missing("max_score_absent", limit, "summary.score_absent", found)]
    ok = value <= limit + _TOLERANCE
    side = "at most" if ok else "above"
    text = f"Concepts that are not in the picture score {value:.3f} on average, {side} {limit:.3f}."
    return [RuleResult("max_score_absent", value, limit, ok, text)]


def _max_false_alarms(evidence: Evidence, limit: float) -> list[RuleResult]:
    name, found = "max_false_alarm_rate", (evidence.evaluation.get("presence") or {}).get("false_alarm_rate")
    value = number(found)
    if value is None:
        return [_missing(name, limit, "presence.false_alarm_rate", found)]
    ok = value <= limit + _TOLERANCE
    side = "at most" if ok else "above"
    text = f"Asked for what is not in the picture, it marks something {value:.1%} of the time, {side} {limit:.1%}."
    return [RuleResult(name, value, limit, ok, text)]


def _losses(evidence: Evidence, limit: float) -> list[RuleResult]:
    """One result for each dataset that both were evaluated on; one that says so where there is none."""
    name, champion = "max_loss_per_dataset", evidence.champion
    if champion is None:
        return [RuleResult(name, None, limit, True, "There is no champion yet: nothing to lose against.")]
    if evidence.nothing_left:
        return [RuleResult(name, None, limit, True, _NOTHING_LEFT)]
    ours, theirs = evidence.evaluation.get("datasets") or {}, champion.get("datasets") or {}
    shared = sorted(set(ours) & set(theirs) - evidence.excused)
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
    was, is_now = number(before), number(after)
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


def data_current(evidence: Evidence) -> RuleResult:
    """The model was trained and evaluated on the newest data version, and on the same manifests."""
    evaluation, lineage = evidence.evaluation, evidence.lineage
    used, current = lineage.get("data_version"), lineage.get("current_data_version") or lineage.get("data_version")
    if not used:
        return RuleResult(DATA_RULE, None, current, False, "The lineage names no data version: register with one.")
    if lineage.get("data_changed"):
        known = lineage.get("current_data_version")
        text = (
            f"The data {f'has changed since {known} and ' if known else ''}is in no version. Where a run is at work, "
            "wait for it; else: segfoundry data ingest, and train again."
        )
        return RuleResult(DATA_RULE, used, current, False, text)
    if used != current:
        text = f"Trained on {used}; the current data version is {current}: train again."
        return RuleResult(DATA_RULE, used, current, False, text)
    trained, evaluated = lineage.get("manifest_digests") or {}, evaluation.get("manifest_digests") or {}
    unseen = sorted(set(trained) - set(evaluated))
    if unseen:
        text = f"Trained on, but not evaluated on: {', '.join(unseen)}. Evaluate again on {used}."
        return RuleResult(DATA_RULE, used, current, False, text)
    other = sorted(name for name in set(trained) & set(evaluated) if trained[name] != evaluated[name])
    if other:
        text = f"Evaluated on other manifests than trained on: {', '.join(other)}. Evaluate again on {used}."
        return RuleResult(DATA_RULE, used, current, False, text)
    return RuleResult(DATA_RULE, used, current, True, f"Trained and evaluated on the current data version {used}.")


def _no_significant_loss(evidence: Evidence, limit: dict[str, Any]) -> list[RuleResult]:
    """A result for each dataset, modality and concept that champion and candidate share pairs of."""
    name, tolerance = "no_significant_loss", float(limit["tolerance"])
    if evidence.champion is None:
        return [RuleResult(name, None, -tolerance, True, "There is no champion yet: nothing to lose against.")]
    levels = tuple(limit.get("levels", LEVELS))
    rows = [row for row in evidence.comparison or [] if row["level"] in levels]
    if not rows and evidence.nothing_left:
        return [RuleResult(name, None, -tolerance, True, _NOTHING_LEFT)]
    if not rows:
        text = (
            "Candidate and champion were compared on no pair of sample and concept: evaluate the champion on this "
            "data (segfoundry evaluate) or keep its evaluation.parquet."
        )
        return [RuleResult(name, None, -tolerance, False, text)]
    return [_significant(name, row, limit) for row in rows]


def _significant(name: str, row: dict[str, Any], limit: dict[str, Any]) -> RuleResult:
    subject = _subject(row["level"], row["name"])
    numbers = {key: row.get(key) for key in ("before", "after", "interval", "groups", "pairs", "missing", "external")}
    difference = number(row.get("difference"))
    ends: list[float] = row.get("interval") or []
    few = int(row.get("groups") or 0) < limit["min_groups"] or not ends
    bar = -float(limit["few_groups_tolerance" if few else "tolerance"])
    if row.get("missing"):
        text = (
            f"{subject}: the champion was measured on {row['missing']} pairs where the candidate has no number; "
            "evaluate again. What is not measured blocks."
        )
        return RuleResult(name, None, bar, False, text, subject, numbers)
    judged = difference if few else number(ends[1])
    if difference is None or judged is None:
        return RuleResult(
            name, None, bar, False, _missing(name, bar, subject, difference).explanation, subject, numbers
        )
    ok = judged >= bar - _TOLERANCE
    change = f"{subject}: {row['before']:.3f} → {row['after']:.3f} ({difference:+.3f}"
    if few:
        text = f"{change}; {row['groups']} groups, too few for an interval); {'within' if ok else 'beyond'} {bar:+.3f}."
    else:
        side = "not wholly below" if ok else "wholly below"
        text = f"{change}, 95 % interval {ends[0]:+.3f} to {ends[1]:+.3f}, {row['groups']} groups), {side} {bar:+.3f}."
    return RuleResult(name, judged, bar, ok, text, subject, numbers)


def _min_dice(evidence: Evidence, limit: dict[str, dict[str, float]]) -> list[RuleResult]:
    """The text Dice of each dataset, modality and concept that has a minimum."""
    results = []
    for level in LEVELS:
        for name, least in sorted((limit.get(level) or {}).items()):
            subject, found = _subject(level, name), list(_figures(evidence.evaluation, level, name))
            value = sum(found) / len(found) if found and None not in map(number, found) else None
            if value is None:
                results.append(_missing("min_dice", least, f"text Dice of {level} {name}", None, subject))
                continue
            ok = value >= least - _TOLERANCE
            text = f"{subject}: Dice with text prompts is {value:.3f}, {'at least' if ok else 'below'} {least:.3f}."
            results.append(RuleResult("min_dice", value, least, ok, text, subject))
    return results


def _figures(evaluation: dict[str, Any], level: str, name: str) -> Iterator[Any]:
    """The text Dice of every dataset that has it; of external sets where no other has."""
    ours: list[Any] = []
    outside: list[Any] = []
    for dataset, entry in sorted((evaluation.get("datasets") or {}).items()):
        found: dict[str, Any] = entry
        if level == "concept":
            found = (entry.get("concepts") or {}).get(name) or {"dice_text_after": None, "pairs": 0}
            if not found.get("pairs"):
                continue
        elif name != (dataset if level == "dataset" else entry.get("modality")):
            continue
        if level == "modality" and not entry.get("samples"):
            continue  # no test case of it: nothing to say about the modality
        (outside if entry.get("external") else ours).append(found.get("dice_text_after"))
    yield from ours or outside


def _subject(level: str, name: str) -> str:
    return name if level == "dataset" else f"{level} {name}"


def _leakage(evidence: Evidence, wanted: bool) -> list[RuleResult]:
    name, found = "leakage_clean", evidence.leakage
    if not wanted:
        return []
    if found is None or not isinstance(found.get("ok"), bool):
        return [RuleResult(name, None, "clean", False, "There is no leakage report: run segfoundry data leakage.")]
    if found["ok"]:
        return [RuleResult(name, "clean", "clean", True, "No patient and no picture is on both sides of a split.")]
    places = [f"{one['train']} {one['part']} / {one['held_out']} {one['split']}" for one in found.get("matrix") or []]
    text = f"Patients or pictures are on both sides of a split: {', '.join(places) or 'see segfoundry data leakage'}."
    return [RuleResult(name, "leaks", "clean", False, text, numbers={"matrix": found.get("matrix")})]


def _licence(evidence: Evidence, limit: str) -> list[RuleResult]:
    name, lineage = "licence", evidence.lineage
    strictest = lineage.get("strictest_licence")
    unstated = sorted(
        str(one["dataset"]) for one in lineage.get("datasets") or [] if licence_name(one.get("licence")) == "unknown"
    )
    if not strictest or unstated:
        what = f"of {', '.join(unstated)}" if unstated else "in the lineage"
        return [RuleResult(name, None, limit, False, f"No licence is stated {what}: state it in the dataset's card.")]
    if limit == "any":
        return [RuleResult(name, strictest, limit, True, f"All licences are stated; the strictest is {strictest}.")]
    said = lineage.get("commercial_use" if limit == "commercial" else "redistribution") or "unknown"
    ok = said == "yes"
    use = {"commercial": "Commercial use", "redistribution": "Redistribution"}[limit]
    text = f"{use}: the licences of data and start weights say {said} (strictest: {strictest})."
    return [RuleResult(name, said, limit, ok, text)]


_RULES: dict[str, Rule] = {
    "min_dice_text": _min_dice_text,
    "min_gain_over_start": _min_gain,
    "max_score_absent": _max_absent,
    "max_false_alarm_rate": _max_false_alarms,
    "max_loss_per_dataset": _losses,
    "no_significant_loss": _no_significant_loss,
    "min_dice": _min_dice,
    "leakage_clean": _leakage,
    "licence": _licence,
}
RULES = (*_RULES, "gone", "approval")
