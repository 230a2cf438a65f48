"""The Prefect flow: what changed is made again, in the order of `dvc.yaml`, and the result is released.

Prefect decides when, where and how often; what makes what is DVC's graph alone. Importing this module
imports Prefect: call `orchestration.prepare` first.
"""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.task_runners import ThreadPoolTaskRunner

from infra.compute import ray_session
from infra.dvc import INGEST_PREFIX, DataVersion
from infra.errors import ServiceError
from infra.settings import load_settings
from pipelines import events, orchestration, pages, release, stages
from pipelines.workspace import Workspace

STAGE_TIMEOUT = timedelta(hours=12)
RELEASE_TIMEOUT = timedelta(hours=1)
RETRIES = 2
RETRY_DELAY_S = 2.0
_begun = {"run": time.monotonic()}  # when this process asked for the flow: what Prefect takes to start is a phase
_session = contextlib.ExitStack()  # the Ray session that `run` opens while Prefect starts, and `run_stages` closes


def _worth_a_retry(_task: Any, _run: Any, state: Any) -> bool:
    # Bad input stays bad; a service or the disk may come back.
    error = state.result(raise_on_failure=False)
    return isinstance(error, (ServiceError, OSError))


@task(
    name="stage",
    task_run_name="{stage}",
    retries=RETRIES,
    retry_delay_seconds=RETRY_DELAY_S,
    retry_condition_fn=_worth_a_retry,
    timeout_seconds=STAGE_TIMEOUT.total_seconds(),
    cache_policy=NO_CACHE,  # DVC knows what is done; a second memory could disagree with it
    persist_result=False,
)
def stage_task(workspace: str, stage: str) -> None:
    """Run one stage of `dvc.yaml`."""
    events.emit("stage", name=stage, state="begin")
    stages.run_stage(Workspace(Path(workspace)), stage)
    events.emit("stage", name=stage, state="end")


@task(
    name="release",
    retries=RETRIES,
    retry_delay_seconds=RETRY_DELAY_S,
    retry_condition_fn=_worth_a_retry,
    timeout_seconds=RELEASE_TIMEOUT.total_seconds(),
    cache_policy=NO_CACHE,
    persist_result=False,
)
def release_task(workspace: str) -> dict[str, Any]:
    """Register, judge, promote and report; every step knows what is already done."""
    return release.release(Workspace(Path(workspace)))


def _runner() -> Any:
    # Prefect's own types call a runner of any result something else than a task runner
    return ThreadPoolTaskRunner(max_workers=load_settings().concurrent_datasets)


@flow(name="retrain", flow_run_name="retrain", validate_parameters=False, persist_result=False, log_prints=False)
def retrain(workspace: str) -> dict[str, Any]:
    """Make what is stale in the workspace, tag the data version, and release the model.

    Only the path goes through Prefect: its parameters are visible to everyone who sees its pages.
    """
    place = Workspace(Path(workspace))
    events.emit("phase", name="start", state="end")
    place.note_seconds("phase start Prefect", time.monotonic() - _begun["run"])
    ran = run_stages(place)
    with events.phase("release"):
        outcome = {**release_task(workspace), "stages_run": ran}
    _show_in_prefect(outcome)
    return outcome


def run_stages(place: Workspace) -> list[str]:
    """Walk the graph generation by generation and commit every stage to DVC in the order of `dvc repro`.

    Returns the stages that ran: fewer than were stale where a stage made what it had made before.
    """
    repo = place.repo
    generations = repo.generations()
    ran: list[str] = []
    with _session, ray_session(place.state):
        for generation in generations:
            changed = set(repo.changed())
            todo = [name for name in generation if name in changed]
            ingests = any(name.startswith(INGEST_PREFIX) for name in generation)
            with events.phase("ingest" if ingests else " ".join(generation)):
                ran += _run_generation(place, todo)
            if ingests:
                tag(place)
                pages.write_pages(place)
    repo.commit_state("model: candidate and evaluation")
    return ran


def _run_generation(place: Workspace, todo: list[str]) -> list[str]:
    repo = place.repo
    futures = {name: stage_task.submit(str(place.root), name) for name in todo}
    started = time.monotonic()
    failed = []
    # Committed in plan order, whatever finishes first: then dvc.lock has the same bytes as after `dvc repro`.
    # All are waited for, also after a failure: the others still use Ray, and their work need not be done again.
    for name, future in futures.items():
        future.wait()
        if future.state.is_completed():
            repo.commit_stage(name)
        else:
            failed.append(future)
    for future in failed:
        future.result()  # raises what the stage raised
    if todo:
        phase = "ingest" if todo[0].startswith(INGEST_PREFIX) else todo[0]
        place.note_seconds(f"phase {phase}", time.monotonic() - started)
    return todo


def tag(place: Workspace) -> DataVersion:
    """Commit and tag the data version; nothing where it is the newest one already."""
    started = time.monotonic()
    with events.phase("version"):
        version = place.repo.tag_data_version()
    place.note_seconds("phase version", time.monotonic() - started)
    events.emit("version", tag=version.tag, created=version.created)
    return version


def _show_in_prefect(outcome: dict[str, Any]) -> None:
    create_table_artifact(
        key="datasets",
        table=[{key: row[key] for key in row if key != "reason"} for row in outcome["datasets"]],
        description="Test split, text prompts: Dice before and after",
    )
    model = outcome["model"]
    lines = [
        f"# {model['name']} version {model['version']}{' @' + model['alias'] if model['alias'] else ''}",
        f"Data version **{outcome['data_version']}**. Gate: **{outcome['gate']['verdict']}**.",
        *[f"- {rule['name']}: {rule['explanation']}" for rule in outcome["gate"]["rules"]],
        f"\nReport: `{outcome['report']}`",
    ]
    create_markdown_artifact(key="model", markdown="\n".join(lines), description="What was released")


def run(place: Workspace) -> dict[str, Any]:
    """Run the flow in this process. Needs the workspace's run lock.

    Prefect's server and Ray's head start at the same time: both mostly wait for processes of their own.
    """
    begun = time.monotonic()
    events.emit("phase", name="start", state="begin")
    with ThreadPoolExecutor(1) as pool, _session:
        server = pool.submit(orchestration.start, place.state, retrain.name, str(place.root))
        _session.enter_context(ray_session(place.state))
        took = time.monotonic() - begun
        place.note_seconds("phase start Ray", took)
        server.result()
        _begun["run"] = begun + took  # the rest, until the flow begins, is Prefect's
        chosen = retrain.with_options(task_runner=_runner())
        outcome: dict[str, Any] = chosen(str(place.root))
    return outcome


@flow(name="refresh", flow_run_name="refresh", validate_parameters=False, persist_result=False)
def refresh(workspace: str) -> dict[str, Any]:
    """What a schedule runs: look for changed raw files first, then everything that `retrain` does."""
    from pipelines import demo  # it imports this module in turn, when something is stale

    return demo.run(Path(workspace), phantoms=False)
