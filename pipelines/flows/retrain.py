"""The flows: `ingest`, `train`, `evaluate`, `promote`, each on its own, and `retrain`, which is all of them in order.

Prefect decides when, where and how often; what makes what is DVC's graph alone. Only the workspace's path goes through
Prefect as a parameter: parameters are visible to everyone who sees its pages. Importing this module imports Prefect:
call `orchestration.prepare` first.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from prefect import flow, runtime
from prefect.task_runners import ThreadPoolTaskRunner

from infra.processes import RunLock, holds_lock, recorded_children
from infra.settings import load_settings
from pipelines import demo, events, release
from pipelines.flows import alive, artifacts, parts, policy
from pipelines.workspace import Workspace

Document = dict[str, Any]
# Prefect's own types call a runner of any result something else than a task runner
_RUNNER: Any = ThreadPoolTaskRunner(max_workers=load_settings().concurrent_datasets)
COMMON: dict[str, Any] = {
    "validate_parameters": False,
    "persist_result": False,
    "log_prints": False,
    "timeout_seconds": policy.FLOW_TIMEOUT_S,
    "task_runner": _RUNNER,
}


@contextlib.contextmanager
def alone(workspace: str, what: str, *, clean: bool = True) -> Iterator[Workspace]:
    """The workspace, with the run lock of this process, and what a killed run left cleaned away.

    A run that waits for another says every few seconds that it lives, so that it is not taken for dead.
    """
    place = Workspace.existing(Path(workspace))
    with contextlib.ExitStack() as stack:
        stack.enter_context(alive.at_work(place.state, str(runtime.flow_run.id), what))
        if not holds_lock(place.state):
            # nobody sits in front of a served run; who typed a command is told at once that another one works
            patience_s = load_settings().lock_patience_s if runtime.deployment.id else 0.0
            stack.enter_context(RunLock(place.state, f"flow {what}", patience_s))
            if clean:  # before this run's own children are written where the killed run's were
                demo.clean_up(place)
            stack.enter_context(recorded_children(place.state))
        stack.enter_context(parts.session)
        stack.enter_context(artifacts.progress(place))
        yield place


@flow(name="ingest", flow_run_name="ingest", **COMMON)
def ingest(workspace: str) -> Document:
    """What is new, harmonized and versioned, and held against the gates on data."""
    with alone(workspace, "ingest") as place:
        _look(place)
        ran = parts.ingest(place)
        return {"stages_run": ran, "changed": bool(ran), "data_version": parts.tag(place).tag}


@flow(name="train", flow_run_name="train", **COMMON)
def train(workspace: str) -> Document:
    """Train a candidate on the data version that is there."""
    with alone(workspace, "train") as place:
        return _part(place, parts.train, "ingest@")


@flow(name="evaluate", flow_run_name="evaluate", **COMMON)
def evaluate(workspace: str) -> Document:
    """Measure the candidate that is there."""
    with alone(workspace, "evaluate") as place:
        return _part(place, parts.evaluate, "ingest@", "train")


@flow(name="promote", flow_run_name="promote", **COMMON)
def promote(workspace: str) -> Document:
    """Register the candidate that is there, judge it against the champion, and promote it or say why not."""
    with alone(workspace, "promote") as place:
        parts.need_done(place, "ingest@", "train", "evaluate")
        return {**parts.promote(place), "stages_run": []}


@flow(name="retrain", flow_run_name="retrain", **COMMON)
def retrain(workspace: str) -> Document:
    """What is new → ingest → gates → train → evaluate → gate against the champion → promote, or say why not."""
    with alone(workspace, "retrain") as place:
        _look(place)
        ran = [*parts.ingest(place), *parts.train(place), *parts.evaluate(place)]
        outcome = parts.promote(place)
        outcome["changed"] = bool(ran) or outcome["changed"]
        return {**outcome, "stages_run": ran, "seconds": release.phases(place)}


def _look(place: Workspace) -> None:
    # Who started the flow in its own process may have looked already: `demo.run` asks first whether there is any work.
    if str(place.root) not in demo.looked:
        with events.phase("sources"):
            parts.sources_task(str(place.root))


def _part(place: Workspace, make: Callable[[Workspace], list[str]], *before: str) -> Document:
    parts.need_done(place, *before)
    ran = make(place)
    return {"stages_run": ran, "changed": bool(ran)}
