"""Runs that Prefect still calls running though their process is dead: marked crashed. Imports Prefect."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.states import Crashed

from pipelines.flows import NAMES, alive

FOUND_DEAD = "found dead: "  # how the message of a run begins that was closed here
NO_RECORD_GRACE_S = 30.0
"""A run writes its record when its body begins, a moment after Prefect calls it running."""
PENDING_GRACE_S = 75.0
"""From pending to running a Python process starts and imports; longer means that nobody starts it any more."""


def runs_in(client: Any, workspace: str, states: list[StateType], *, limit: int = 50) -> list[FlowRun]:
    """Runs of our flows in a workspace that are in one of `states`, newest first."""
    found: list[FlowRun] = client.read_flow_runs(
        flow_filter=FlowFilter(name=FlowFilterName(any_=list(NAMES))),
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=states))),
        sort="EXPECTED_START_TIME_DESC",
        limit=limit,
    )
    return [run for run in found if run.parameters.get("workspace") == workspace]


def why_dead(state: Path, run: FlowRun, grace_s: float) -> str:
    """Why a run that Prefect calls running or pending is dead; "" where it lives or may be about to begin."""
    record = alive.record_of(state, str(run.id))
    if record is not None:
        return alive.why_dead(record)
    since = run.state.timestamp.timestamp() if run.state is not None else 0.0
    pending = run.state is not None and run.state.type == StateType.PENDING
    patience_s = PENDING_GRACE_S if pending else grace_s
    return "" if time.time() - since < patience_s else "no process works on it"


def close_dead(
    client: Any, state: Path, workspace: str, *, grace_s: float = NO_RECORD_GRACE_S
) -> list[tuple[FlowRun, str]]:
    """Mark every dead run of the workspace, and its open tasks, crashed; returns them with the reason."""
    closed = []
    for run in runs_in(client, workspace, [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]):
        why = why_dead(state, run, grace_s)
        if not why:
            continue
        ended: State[Any] = Crashed(message=f"{FOUND_DEAD}{why}")
        client.set_flow_run_state(run.id, ended, force=False)  # not forced: so that its concurrency slot is freed
        if client.read_flow_run(run.id).state_name != ended.name:
            client.set_flow_run_state(run.id, ended, force=True)
        _close_tasks(client, run, why)
        alive.forget(state, str(run.id))
        closed.append((run, why))
    return closed


def _close_tasks(client: Any, run: FlowRun, why: str) -> None:
    open_states = TaskRunFilterState(type=TaskRunFilterStateType(any_=[StateType.RUNNING, StateType.PENDING]))
    tasks = client.read_task_runs(
        flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run.id])),
        task_run_filter=TaskRunFilter(state=open_states),
    )
    for one in tasks:
        client.set_task_run_state(one.id, Crashed(message=why), force=True)
