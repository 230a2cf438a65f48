"""The report: one self-contained HTML page about a model, for clinicians and engineers.

No network, no script: styles, charts and pictures are in the file, so that it can be mailed, printed
and opened years later.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from infra.storage import read_json, write_text
from registry.charts import shares, training_curve
from registry.gate import GateReport
from registry.lineage import licence_name, strictest_licence
from registry.tracking import read_history, read_overlays

TEMPLATE = "report.html"
_RULE_TITLES = {
    "min_dice_text": "Mean Dice, text prompts",
    "min_gain_over_start": "Gain over the start",
    "max_score_absent": "Score on absent concepts",
    "max_loss_per_dataset": "Loss against the champion",
    "current_data_version": "Data version is current",
}
_MOST_OVERLAYS = 48


def write_report(
    path: Path,
    *,
    evaluation: Path,
    candidate: Path,
    datasets: list[dict[str, Any]],
    phases: dict[str, float],
    gate: GateReport | None,
    model: dict[str, Any] | None,
    links: dict[str, str],
) -> None:
    """Write the report of a candidate to `path`, atomically.

    `datasets` are `dataset.json` contents, each with an optional `source_reason`; `phases` are seconds by
    name, in order; `model` is `{"name", "version", "alias", …lineage such as data_version, code_commit}`;
    `links` are labels with an address or a command.
    """
    figures = read_json(evaluation / "evaluation.json")
    rows = dataset_rows(figures, datasets)
    page = _environment().get_template(TEMPLATE)
    write_text(
        path,
        page.render(
            summary=figures.get("summary") or {},
            split=figures.get("split", "test"),
            datasets=rows,
            sources=source_reasons(rows),
            concepts=concept_rows(figures),
            overlays=overlay_figures(evaluation),
            curve=training_curve(read_history(candidate / "history.jsonl")),
            phases=shares(phases),
            seconds=sum(phases.values()),
            gate=gate_rows(gate),
            verdict=gate.verdict if gate else None,
            model=model or {},
            lineage=lineage_rows(figures, read_json(candidate / "train.json"), datasets, model or {}),
            licences=licence_rows(datasets),
            links=links,
        ),
    )


def dataset_rows(figures: dict[str, Any], datasets: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row per dataset of the evaluation or of the data version, by name."""
    measured, cards = figures.get("datasets") or {}, {one["dataset"]: one for one in datasets}
    rows = []
    for name in sorted({*measured, *cards}, key=str.lower):
        entry, card = measured.get(name) or {}, cards.get(name) or {}
        counts = card.get("counts") or {}
        row = {
            "name": name,
            "title": card.get("title") or name,
            "modality": entry.get("modality") or card.get("modality") or "",
            "external": bool(entry.get("external") or card.get("evaluation_only")),
            "source": card.get("source_kind"),
            "reason": card.get("source_reason") or "",
            "samples": counts.get("samples"),
            "quarantined": counts.get("cases_quarantined"),
            "test_samples": entry.get("samples"),
        }
        for figure in ("dice_text_before", "dice_text_after", "dice_box_after"):
            row[figure] = number(entry.get(figure))
        row["why"] = _why_nothing(entry, row["dice_text_after"])
        rows.append(row)
    return rows


def source_reasons(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Why data came from where it came from, said once for all datasets that share a reason."""
    groups: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row["reason"]:
            groups.setdefault((row["source"] or "source", row["reason"]), []).append(row["name"])
    return [{"source": source, "reason": reason, "names": names} for (source, reason), names in groups.items()]


def concept_rows(figures: dict[str, Any]) -> list[dict[str, Any]]:
    """A row per dataset and concept, the datasets by name, their concepts by name."""
    rows = []
    for dataset, entry in sorted((figures.get("datasets") or {}).items(), key=lambda item: item[0].lower()):
        for concept, values in sorted((entry.get("concepts") or {}).items()):
            row = {"dataset": dataset, "concept": concept, "pairs": values.get("pairs")}
            for figure in ("dice_text_before", "dice_text_after", "dice_box_after"):
                row[figure] = number(values.get(figure))
            row["why"] = "no test cases" if row["dice_text_after"] is None else ""
            rows.append(row)
    return rows


def overlay_figures(evaluation: Path) -> list[dict[str, Any]]:
    """The overlay pictures as data URIs, grouped by dataset as `overlays.json` has them."""
    figures = []
    for entry in read_overlays(evaluation)[:_MOST_OVERLAYS]:
        payload = base64.b64encode((evaluation / entry["file"]).read_bytes()).decode("ascii")
        before, after = number(entry.get("dice_before")), number(entry.get("dice_after"))
        figures.append({**entry, "uri": f"data:image/png;base64,{payload}", "dice_before": before, "dice_after": after})
    return figures


def gate_rows(gate: GateReport | None) -> list[dict[str, Any]]:
    """The gate's rules with a title and their numbers as text, those that block first."""
    if gate is None:
        return []
    rows = [
        {
            "title": _RULE_TITLES.get(rule.name, rule.name),
            "subject": rule.subject,
            "ok": rule.ok,
            "value": _plain(rule.value),
            "limit": _limit(rule.name, rule.limit),
            "explanation": rule.explanation,
        }
        for rule in gate.rules
    ]
    return sorted(rows, key=lambda row: bool(row["ok"]))


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


def number(value: Any) -> float | None:
    """A finite number, else None: what was not measured is shown as such."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 1:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _why_nothing(entry: dict[str, Any], dice: float | None) -> str:
    if dice is not None:
        return ""
    if not entry:
        return "not evaluated"
    return "no test cases" if not entry.get("samples") else "nothing to measure"


def _limit(name: str, limit: float | str | None) -> str:
    sign = "≥ " if name.startswith("min_") else "≤ " if name.startswith("max_") else ""
    return sign + _plain(limit)


def _plain(value: float | str | None) -> str:
    return "–" if value is None else value if isinstance(value, str) else f"{value:.3f}"


def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("registry"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["duration"] = duration
    environment.filters["figure"] = lambda value: "–" if number(value) is None else f"{value:.2f}"
    environment.filters["signed"] = lambda value: "–" if number(value) is None else f"{value:+.2f}".replace("-", "−")
    environment.filters["count"] = lambda value: "–" if value is None else f"{value:,}"
    environment.tests["address"] = lambda value: str(value).startswith(("http://", "https://"))
    return environment
