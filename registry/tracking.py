"""What a run shows in MLflow: parameters, figures, the training curve, inputs, files. All in batches.

With basic authentication a request costs a quarter of a second, so nothing is sent one by one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from infra.storage import read_json, read_lines
from registry.lineage import Lineage, licence_name

# MLflow's own limits.
_METRICS_A_BATCH = 1000
_PARAMS_A_BATCH = 100
_DIGEST_LENGTH = 36

SUMMARY = "summary"
EVALUATION_FILES = ("evaluation.json", "evaluation.parquet", "overlays.json")


def all_pages(search: Callable[..., Any], *arguments: Any) -> Iterator[Any]:
    """All that a search of MLflow's client finds: it answers in pages, of 100 or 1,000 by default."""
    token = None
    while True:
        page = search(*arguments, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def log_parameters(client: Any, run_id: str, params: dict[str, Any]) -> None:
    """Log a nested recipe as flat parameters `a.b.c`."""
    from mlflow.entities import Param

    for part in _parts([Param(key, value) for key, value in flatten(params)], _PARAMS_A_BATCH):
        client.log_batch(run_id, params=part)


def log_tags(client: Any, run_id: str, tags: dict[str, str]) -> None:
    """Log tags of a run."""
    from mlflow.entities import RunTag

    for part in _parts([RunTag(key, value) for key, value in tags.items()], _PARAMS_A_BATCH):
        client.log_batch(run_id, tags=part)


def log_metrics(client: Any, run_id: str, evaluation: dict[str, Any]) -> None:
    """Log the figures of an `evaluation.json`: the summary and each dataset; null is left out."""
    now = int(time.time() * 1000)
    metrics = [(key, value, 0) for key, value in figures(evaluation)]
    _log(client, run_id, metrics, now)


def log_curve(client: Any, run_id: str, history: Path) -> None:
    """Log the lines of `history.jsonl` as metrics with steps, named `train/…`."""
    metrics = [
        (f"train/{name}", float(value), int(line["step"]))
        for line in read_history(history)
        for name, value in line.items()
        if name != "step" and isinstance(value, (int, float)) and not isinstance(value, bool)
    ]
    _log(client, run_id, metrics, int(time.time() * 1000))


def log_inputs(client: Any, run_id: str, lineage: Lineage) -> None:
    """Log every dataset as an input of the run: those it was trained on, and those it was only measured on.

    MLflow keeps 36 characters of a digest; the source holds it whole.
    """
    from mlflow.entities import DatasetInput, InputTag

    cards = {one["dataset"]: one for one in lineage.get("datasets") or []}
    trained = [
        {**cards.get(name, {}), "dataset": name, "manifest_digest": digest}
        for name, digest in (lineage.get("manifest_digests") or {}).items()
    ]
    inputs = [
        DatasetInput(_input(one, lineage), tags=[InputTag("mlflow.data.context", context)])
        for context, found in (("training", trained), ("evaluation", lineage.get("external_datasets") or []))
        for one in found
    ]
    if inputs:
        client.log_inputs(run_id, inputs)


def _input(card: dict[str, Any], lineage: Lineage) -> Any:
    """One dataset as MLflow knows it: its source finds it again, its profile says what is in it."""
    from mlflow.entities import Dataset

    source = {
        "data_version": lineage.get("data_version"),
        "data_commit": lineage.get("data_commit"),
        "path": f"data/{card['dataset']}",
        **{name: card.get(name) for name in ("manifest_digest", "split_digest", "ontology_digest", "recipe_sha256")},
    }
    profile = {
        "modality": card.get("modality"),
        "licence": licence_name(card.get("licence")),
        "counts": card.get("counts"),
        "splits": card.get("splits"),
    }
    return Dataset(
        name=card["dataset"],
        digest=str(card["manifest_digest"])[:_DIGEST_LENGTH],
        source_type="segfoundry",
        source=json.dumps(source, sort_keys=True),
        profile=json.dumps(profile, sort_keys=True, ensure_ascii=False),
    )


def log_files(client: Any, run_id: str, evaluation: Path, *, overlays: int, report: Path | None) -> None:
    """Keep the evaluation's files, at most `overlays` of its pictures, and the report with the run."""
    for name in EVALUATION_FILES:
        if (evaluation / name).is_file():
            client.log_artifact(run_id, str(evaluation / name), "evaluation")
    for entry in read_overlays(evaluation)[:overlays]:
        client.log_artifact(run_id, str(evaluation / entry["file"]), "evaluation/overlays")
    if report is not None:
        client.log_artifact(run_id, str(report), "report")


def figures(evaluation: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Names and values of what an `evaluation.json` measured."""
    for name, value in (evaluation.get("summary") or {}).items():
        if isinstance(value, (int, float)):
            yield f"{SUMMARY}/{name}", float(value)
    for dataset, numbers in (evaluation.get("datasets") or {}).items():
        for name, value in numbers.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                yield f"dataset/{dataset}/{name}", float(value)


def flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """A nested dict as `(dotted name, text)`; a list is one JSON value."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from flatten(inner, f"{prefix}.{name}" if prefix else str(name))
    elif prefix:
        text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
        yield prefix, text[:6000]


def read_history(path: Path) -> list[dict[str, Any]]:
    """The lines of `history.jsonl`; none where the file is not there (nothing was trained)."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in read_lines(path) if line.strip()]


def read_overlays(evaluation: Path) -> list[dict[str, Any]]:
    """The entries of `overlays.json`; none where there is no such file."""
    path = evaluation / "overlays.json"
    entries: list[dict[str, Any]] = read_json(path) if path.is_file() else []
    return entries


def _log(client: Any, run_id: str, metrics: Sequence[tuple[str, float, int]], now: int) -> None:
    from mlflow.entities import Metric

    for part in _parts([Metric(name, value, now, step) for name, value, step in metrics], _METRICS_A_BATCH):
        client.log_batch(run_id, metrics=part)


def _parts(items: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
