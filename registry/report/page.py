"""Writing the page: figures in, one HTML file out."""

from __future__ import annotations

import base64
import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any

from infra.storage import read_json, write_text
from registry.charts import shares, training_curve
from registry.gate import GateReport
from registry.pages import environment
from registry.report.differences import forests
from registry.report.evaluation import Intervals, interval_of
from registry.report.extras import (
    instance_table,
    presence_table,
    surface_table,
    synonym_table,
    union_table,
    unmeasured_volumes,
)
from registry.report.failures import failure_rows
from registry.report.gallery import gallery
from registry.report.pairs import read_pairs
from registry.report.presence import reliability
from registry.report.provenance import gate_parts, licence_rows, lineage_rows
from registry.report.sizes import size_rows
from registry.report.tables import concept_rows, dataset_rows, modality_rows, source_reasons, unmeasured_concepts
from registry.report.words import FILTERS
from registry.tracking import read_history

TEMPLATE = "report.html"
SCRIPT = "report.js"


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
    page = _environment().get_template(TEMPLATE)
    write_text(
        path,
        page.render(
            script=_script(),
            script_sha256=base64.b64encode(hashlib.sha256(_script().encode()).digest()).decode("ascii"),
            **measured(evaluation, figures, datasets),
            curve=training_curve(read_history(candidate / "history.jsonl")),
            phases=shares(phases),
            seconds=sum(phases.values()),
            gate=gate_parts(gate),
            verdict=gate.verdict if gate else None,
            model=model or {},
            lineage=lineage_rows(figures, read_json(candidate / "train.json"), datasets, model or {}),
            licences=licence_rows(datasets),
            links=links,
        ),
    )


def measured(evaluation: Path, figures: dict[str, Any], datasets: list[dict[str, Any]]) -> dict[str, Any]:
    """What the page says of an evaluation folder, those trained on and external sets apart."""
    rows = dataset_rows(figures, datasets)
    summary, presence = figures.get("summary") or {}, figures.get("presence") or {}
    inside = {row["name"] for row in rows if not row["external"]}
    external = {row["name"] for row in rows if row["external"]}
    pairs, intervals = read_pairs(evaluation), Intervals(figures)
    return {
        "summary": summary,
        "summary_interval": intervals.of("all", "", external=False),
        "external_summary": summary.get("external"),
        "external_interval": intervals.of("all", "", external=True),
        "false_alarms": presence.get("false_alarm_rate"),
        "false_alarms_interval": interval_of(presence, "false_alarm_rate"),
        "split": figures.get("split", "test"),
        "datasets": rows,
        "modalities": modality_rows(figures),
        "sources": source_reasons(rows),
        "concepts": concept_rows(figures, datasets),
        "unmeasured": unmeasured_concepts(figures),
        "forests": forests(figures.get("paired")),
        "sizes": _apart(inside, external, lambda names: size_rows(pairs, names)),
        "failures": _apart(inside, external, lambda names: failure_rows(figures, names)),
        "reliability": reliability(pairs, inside),
        "presence": presence_table(figures, external),
        "surfaces": surface_table(figures),
        "unmeasured_volumes": unmeasured_volumes(figures),
        "instances": instance_table(figures),
        "unions": union_table(figures),
        "synonyms": synonym_table(figures),
        "gallery": gallery(evaluation, external),
    }


def _apart(inside: set[str], external: set[str], rows_of: Any) -> list[dict[str, Any]]:
    """Rows over the datasets trained on and rows over external sets, those with none left out."""
    parts = [("Datasets trained on" if external else "All datasets", rows_of(inside))]
    parts.append(("External sets", rows_of(external)))
    return [{"title": title, "rows": rows} for title, rows in parts if rows]


@lru_cache(maxsize=1)
def _script() -> str:
    return (Path(__file__).parent.parent / "templates" / SCRIPT).read_text(encoding="utf-8").strip()


def _environment() -> Any:
    from markupsafe import Markup

    made = environment()
    made.filters.update(FILTERS)
    made.filters["script"] = Markup  # our own file alone, never a figure or a name
    made.tests["address"] = lambda value: str(value).startswith(("http://", "https://"))
    return made
