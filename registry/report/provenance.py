"""Where a model comes from and what the gate said, as rows of the report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from registry.gate import GateReport
from registry.lineage import licence_name, strictest_licence
from registry.report.words import plain

_RULE_TITLES = {
    "min_dice_text": "Mean Dice, text prompts",
    "min_gain_over_start": "Gain over the start",
    "max_score_absent": "Score on absent concepts",
    "max_loss_per_dataset": "Loss against the champion",
    "current_data_version": "Data version is current",
    "aliases": "Aliases are the ledger's",
    "still_measured": "Measured as the champion was",
    "max_false_alarm_rate": "False alarms on absent concepts",
    "no_significant_loss": "No significant loss against the champion",
    "min_dice": "Least Dice",
    "leakage_clean": "Leakage report is clean",
    "licence": "Licence allows it",
}

_MOST_RULES = 15


def gate_rows(gate: GateReport | None) -> list[dict[str, Any]]:
    """The gate's rules with a title and their numbers as text, those that block first."""
    if gate is None:
        return []
    rows = [
        {
            "title": _RULE_TITLES.get(rule.name) or rule.name.replace("_", " ").capitalize(),
            "subject": rule.subject,
            "ok": rule.ok,
            "value": plain(rule.value),
            "limit": _limit(rule.name, rule.limit),
            "explanation": rule.explanation,
        }
        for rule in gate.rules
    ]
    return sorted(rows, key=lambda row: bool(row["ok"]))


def gate_parts(gate: GateReport | None) -> dict[str, list[dict[str, Any]]]:
    """The rules to show first, what blocks and what is of the whole model, and the `rest`, where there are many."""
    rows = gate_rows(gate)
    if len(rows) <= _MOST_RULES:
        return {"shown": rows, "rest": []}
    shown = [row for row in rows if not row["ok"] or not row["subject"]]
    return {"shown": shown, "rest": [row for row in rows if row["ok"] and row["subject"]]}


def lineage_rows(
    figures: dict[str, Any], train: dict[str, Any], datasets: Sequence[dict[str, Any]], model: dict[str, Any]
) -> list[tuple[str, str, bool]]:
    """(label, value, is it an identifier) of what made the model; what is not known is left out."""
    inherited = train.get("start_licences") or []
    rows = [
        ("Data version", model.get("data_version"), False),
        ("Data commit", model.get("data_commit"), True),
        ("Code commit", model.get("code_commit"), True),
        ("Datasets", str(len(train.get("datasets") or {})), False),
        ("Strictest licence", _licence(train, datasets, model), False),
        ("Parameters", _trained(train), False),
        ("Start weights' terms", "; ".join(f"{one['of']}: {licence_name(one)}" for one in inherited), False),
        ("Steps", f"{train['steps']:,}" if isinstance(train.get("steps"), int) else None, False),
        ("Workers", train.get("workers"), False),
        ("Seed", train.get("seed"), False),
        ("Weights (SHA-256)", figures.get("weights_sha256"), True),
        ("Start checkpoint (SHA-256)", figures.get("start_sha256"), True),
        ("MLflow run", model.get("run_id"), True),
    ]
    return [(label, str(value), code) for label, value, code in rows if value not in (None, "")]


def _licence(train: dict[str, Any], datasets: Sequence[dict[str, Any]], model: dict[str, Any]) -> str:
    said = model.get("strictest_licence") or (train.get("licence") or {}).get("strictest")
    return str(said or strictest_licence(datasets))


def _trained(train: dict[str, Any]) -> str | None:
    """How many parameters there are, how many of them were trained, and by what."""
    count, trained = train.get("parameters"), train.get("trained_parameters")
    if not isinstance(count, int):
        return None
    lora = (train.get("recipe") or {}).get("lora") if isinstance(train.get("recipe"), dict) else None
    by = f", LoRA of rank {lora['rank']} in {', '.join(lora['parts'])}" if lora else ""
    return f"{count:,}, " + ("all trained" if trained in (None, count) else f"{trained:,} trained{by}")


def licence_rows(datasets: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Licence, citation and manifest digest of each dataset."""
    return [
        {
            "name": card["dataset"],
            "licence": licence_name(card.get("licence")),
            "citation": card.get("citation") or "",
            "digest": card.get("manifest_digest") or "",
        }
        for card in sorted(datasets, key=lambda one: str(one["dataset"]).lower())
    ]


def _limit(name: str, limit: Any) -> str:
    sign = "≥ " if name.startswith("min_") else "≤ " if name.startswith("max_") else ""
    return sign + plain(limit)
