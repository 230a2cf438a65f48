"""What Prefect's pages show of a run: progress, what changed in the data, the evaluation, overlays, links.

An artifact is for the eye; whether it can be written decides nothing. So a page that cannot be reached costs a line in
the log and never the run. Importing this module imports Prefect.
"""

from __future__ import annotations

import base64
import contextlib
import contextvars
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from infra import services
from infra.storage import read_json
from pipelines import events, history
from pipelines.workspace import Workspace

Document = dict[str, Any]
_LOG = logging.getLogger(__name__)
_UPDATE_S = 3.0
# Where a phase begins and ends on the way from 0 to 100 %.
_SPANS = {
    "sources": (0, 5),
    "ingest": (5, 30),
    "version": (30, 32),
    "train": (32, 80),
    "evaluate": (80, 94),
    "release": (94, 100),
}
_PICTURES = 6
_PICTURE_BYTES = 400_000
_COUNTS = ("added", "removed", "changed", "unchanged")


def _harmless(write: Callable[..., Any]) -> Callable[..., None]:
    def tried(*arguments: Any, **named: Any) -> None:
        try:
            write(*arguments, **named)
        except Exception as error:  # noqa: BLE001 - nothing on a page is worth a training
            _LOG.warning("no artifact %s: %s", write.__name__, error)

    return tried


class _Bar:
    """The share that is done, as events tell it."""

    def __init__(self) -> None:
        self.percent = 0.0
        self._done: dict[str, tuple[float, float]] = {}

    def hear(self, event: Document) -> None:
        if event["kind"] == "phase" and event["name"] in _SPANS:
            self._reach(_SPANS[event["name"]][event["state"] == "end"])
        elif event["kind"] == "progress" and event.get("stage") in _SPANS:
            done = event.get("step", event.get("done")) or 0
            total = event.get("steps", event.get("total")) or 0
            self._done[f"{event['stage']} {event.get('dataset', '')}"] = (float(done), float(total))
            mine = [value for key, value in self._done.items() if key.startswith(f"{event['stage']} ")]
            known = sum(total for _, total in mine)
            begin, end = _SPANS[event["stage"]]
            if known:
                self._reach(begin + (end - begin) * min(1.0, sum(done for done, _ in mine) / known))

    def _reach(self, percent: float) -> None:
        self.percent = max(self.percent, percent)


@contextlib.contextmanager
def progress(place: Workspace) -> Iterator[None]:
    """Keep a progress artifact up to date while the block runs; asked every few seconds, not told each step."""
    bar, stop = _Bar(), threading.Event()
    try:
        made: Any = create_progress_artifact(progress=0.0, key="progress", description=f"Run in {place.root.name}")
    except Exception as error:  # noqa: BLE001 - as above
        _LOG.warning("no progress artifact: %s", error)
        made = None

    def show() -> None:
        shown = 0.0
        while not stop.wait(_UPDATE_S):
            if bar.percent != shown:
                shown = bar.percent
                _harmless(update_progress_artifact)(made, progress=round(shown, 1))

    # a thread of its own, with this run's context: the stages' threads must not wait for a page
    thread = threading.Thread(
        target=contextvars.copy_context().run, args=(show,), name="progress-artifact", daemon=True
    )
    if made is not None:
        thread.start()
    try:
        with events.listening(bar.hear):
            yield
        bar.percent = 100.0
    finally:
        stop.set()
        if made is not None:
            thread.join()
            _harmless(update_progress_artifact)(made, progress=round(bar.percent, 1))


@_harmless
def data_diff(place: Workspace, tag: str) -> None:
    """What the data version changed against the one before, by dataset."""
    tags = history.data_versions(place)
    older = tags[tags.index(tag) - 1] if tags.index(tag) else None
    if older is None:
        rows = [{"dataset": name, "state": "first version"} for name in place.params().datasets]
    else:
        rows = [_diff_row(name, one) for name, one in history.compare(place, older, tag).items()]
    create_table_artifact(key="data-diff", table=rows, description=f"{tag} against {older or 'nothing before'}")


def _diff_row(name: str, one: Document) -> Document:
    counts = {key: _count(one.get(key)) for key in _COUNTS if key in one}
    return {"dataset": name, "state": one["state"], **counts}


def _count(value: Any) -> Any:
    return len(value) if isinstance(value, list | dict) else value


@_harmless
def evaluation(place: Workspace) -> None:
    """Dice by dataset and concept, and overlays of best, median and worst."""
    found = read_json(place.evaluation / "evaluation.json")
    rows = [
        {"dataset": name, "concept": concept, "pairs": one["pairs"], "Dice before": _short(one["dice_text_before"]),
         "Dice after": _short(one["dice_text_after"])}
        for name, dataset in found["datasets"].items()
        for concept, one in dataset["concepts"].items()
    ]  # fmt: skip
    create_table_artifact(key="evaluation", table=rows, description=f"{found['split']} split, text prompts")
    pictures = []
    for one in read_json(place.evaluation / "overlays.json")[:_PICTURES]:
        payload = (place.evaluation / one["file"]).read_bytes()
        if len(payload) <= _PICTURE_BYTES:
            said = (
                f"{one['dataset']}, {one['concept']}: Dice {_short(one['dice_before'])} → {_short(one['dice_after'])}"
            )
            pictures.append(f"{said}\n\n![{said}](data:image/png;base64,{base64.b64encode(payload).decode('ascii')})")
    if pictures:
        text = "Image, truth, prediction\n\n" + "\n\n".join(pictures)
        create_markdown_artifact(key="overlays", markdown=text, description="Overlays")


@_harmless
def released(place: Workspace, outcome: Document) -> None:
    """The model version, the gate's rules, and links to report, MLflow run and version."""
    model, gate = outcome["model"], outcome["gate"]
    rules = [f"| {rule['name']} | {'holds' if rule['ok'] else '**blocks**'} | {rule['explanation']} |"
             for rule in gate["rules"]]  # fmt: skip
    lines = [
        f"# {model['name']} version {model['version']}{' @' + model['alias'] if model['alias'] else ''}",
        f"Data version **{outcome['data_version']}**. Gate: **{gate['verdict']}**.\n",
        "| rule | | why |\n| --- | --- | --- |",
        *rules,
        *([f"\n**Waits**: {outcome['waits']}"] if outcome["waits"] else []),
        f"\nReport: `{outcome['report']}`",
    ]
    create_markdown_artifact(key="model", markdown="\n".join(lines), description="What came out")
    for key, (address, text) in links(place, outcome).items():
        create_link_artifact(key=key, link=address, link_text=text, description=text)


def links(place: Workspace, outcome: Document) -> dict[str, tuple[str, str]]:
    """Key -> address and words: the report, and MLflow's pages where a server is known."""
    from pipelines.release import open_store

    model = outcome["model"]
    found = {"report": (f"file://{outcome['report']}", f"Report of version {model['version']}")}
    running = services.status(place.state).get("mlflow", {}).get("url", "")
    server = place.tracking_uri if place.tracking_uri.startswith("http") else running
    if server:
        store = open_store(place)
        run_id = store.resolve(model["name"], model["version"]).run_id
        experiment = store.client.get_run(run_id).info.experiment_id
        pages = f"{server.rstrip('/')}/#"
        found["mlflow-run"] = (f"{pages}/experiments/{experiment}/runs/{run_id}", "MLflow run")
        found["model-version"] = (f"{pages}/models/{model['name']}/versions/{model['version']}", "Model version")
    return found


@_harmless
def audit(document: Document) -> None:
    """Every check of the audit with its findings."""
    rows = [
        {"check": name, "verdict": "holds" if one["ok"] else "DOES NOT HOLD", "findings": "; ".join(one["findings"])}
        for name, one in document["checks"].items()
    ]
    create_table_artifact(key="audit", table=rows, description=f"Audit of {document['at']}")


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
