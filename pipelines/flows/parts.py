"""The parts of a retraining as Prefect tasks: sources, ingest, gates, train, evaluate, promote.

Tasks are given paths and names, never arrays. Each knows what is done already: DVC what is up to date, the registry
what is registered, the ledger what was decided. So a flow that was killed is started again, and only what was not
finished is made. Importing this module imports Prefect: call `orchestration.prepare` first.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from infra.compute import ray_session
from infra.dvc import INGEST_PREFIX, DataVersion
from infra.errors import UsageError
from pipelines import costs, events, gates, pages, quality, release, stages, starts
from pipelines.flows import artifacts, policy
from pipelines.workspace import Workspace

Document = dict[str, Any]
TRAIN, EVALUATE = "train", "evaluate"
session = contextlib.ExitStack()  # the Ray session that `run.in_this_process` opens while Prefect starts
_COMMON: dict[str, Any] = {
    "retries": policy.RETRIES,
    "retry_delay_seconds": policy.DELAYS_S,
    "retry_condition_fn": policy.worth_a_retry,
    "cache_policy": NO_CACHE,  # DVC knows what is done; a second memory could disagree with it
    "persist_result": False,
}


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        said = policy.explained(error, what)
        if said is error:
            raise
        raise said from error


@task(name="sources", timeout_seconds=policy.STEP_TIMEOUT_S, **_COMMON)
def sources_task(workspace: str) -> list[str]:
    """Find raw files, also in the watched place, and write what the stages depend on; returns the datasets."""
    from pipelines import demo  # it imports this module in turn, when something is stale

    with _told("sources"):
        return demo.look_for_sources(Path(workspace)).params().datasets


@task(name="stage", task_run_name="{stage}", timeout_seconds=policy.STAGE_TIMEOUT_S, **_COMMON)
def stage_task(workspace: str, stage: str) -> None:
    """Run one stage of `dvc.yaml`."""
    place, started = Workspace(Path(workspace)), time.monotonic()
    events.emit("stage", name=stage, state="begin")
    with _told(stage):
        stages.run_stage(place, stage)
    costs.note(place, stage, time.monotonic() - started)
    events.emit("stage", name=stage, state="end")


@task(name="gates", timeout_seconds=policy.STEP_TIMEOUT_S, **_COMMON)
def gates_task(workspace: str) -> None:
    """Refuse data that leaks from one split into another, or that is plainly worse than before."""
    place = Workspace(Path(workspace))
    names = place.params().datasets
    with _told("gates"):
        quality.refuse(place, names)  # first: it names a file that cannot be read
        gates.refuse_leakage(place, names)


@task(name="release", timeout_seconds=policy.STEP_TIMEOUT_S, **_COMMON)
def release_task(workspace: str) -> Document:
    """Register, judge, promote and report; every step knows what is already done."""
    with _told("release"):
        return release.release(Workspace(Path(workspace)))


def ingest(place: Workspace) -> list[str]:
    """Build the datasets that are stale, tag the data version, and hold it against the gates."""
    stale = [name for name in place.repo.stale() if name.startswith(INGEST_PREFIX)]
    ran = []
    if stale:
        need_ray(place)
        ran = _ingest_stale(place)
    version = tag(place)
    if ran:
        pages.write_pages(place)
        artifacts.data_diff(place, version.tag)
    if ran or place.repo.stale():  # where nothing follows, nothing reads the data: the audit looks at it every night
        gates_task(str(place.root))
    return ran


def train(place: Workspace) -> list[str]:
    """Train where data, recipe or code say so; from the champion where `train.start` says so."""
    starts.pin(place, release.open_store(place))
    ran = _one(place, TRAIN)
    place.repo.commit_state("model: candidate")
    return ran


def evaluate(place: Workspace) -> list[str]:
    """Measure the candidate and what it started from."""
    ran = _one(place, EVALUATE)
    place.repo.commit_state("model: candidate and evaluation")
    if ran:
        artifacts.evaluation(place)
    return ran


def promote(place: Workspace) -> Document:
    """Register, judge against the champion, promote or say why not."""
    place.repo.commit_state("model: candidate and evaluation")
    with events.phase("release"):
        outcome: Document = release_task(str(place.root))
    artifacts.released(place, outcome)
    return outcome


def need_done(place: Workspace, *prefixes: str) -> None:
    """UsageError where a stage that comes before is stale: a part on its own builds on what is there."""
    stale = [name for name in place.repo.stale() if name.startswith(prefixes)]
    if stale:
        msg = (
            f"{place.root}: expected everything before this part to be up to date, found stale: {', '.join(stale)}. "
            "Run: segfoundry flow run retrain, or the flows of the parts before"
        )
        raise UsageError(msg)


def need_ray(place: Workspace) -> None:
    """A Ray session until the run ends; the same one for all parts, and none where nothing is to be made."""
    session.enter_context(ray_session(place.state))


def tag(place: Workspace) -> DataVersion:
    """Commit and tag the data version; nothing where it is the newest one already."""
    started = time.monotonic()
    with events.phase("version"):
        version = place.repo.tag_data_version()
    place.note_seconds("phase version", time.monotonic() - started)
    events.emit("version", tag=version.tag, created=version.created)
    return version


def _one(place: Workspace, stage: str) -> list[str]:
    if stage not in place.repo.changed():
        return []
    need_ray(place)
    with events.phase(stage):
        return _run_generation(place, [stage])


def _ingest_stale(place: Workspace) -> list[str]:
    """Build the datasets that changed, several at a time, in DVC's order."""
    changed = set(place.repo.changed())
    todo = [name for name in place.repo.plan() if name.startswith(INGEST_PREFIX) and name in changed]
    with events.phase("ingest"):
        return _run_generation(place, todo)


def _run_generation(place: Workspace, todo: list[str]) -> list[str]:
    """Run stages at the same time and commit every one to DVC, in the order of `dvc repro`."""
    if not todo:
        return []
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
    phase = "ingest" if todo[0].startswith(INGEST_PREFIX) else todo[0]
    place.note_seconds(f"phase {phase}", time.monotonic() - started)
    return todo
