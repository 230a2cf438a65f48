"""The main job, end to end: find sources, make what is stale, release. `segfoundry demo` and `flow run`."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import yaml

from infra.compute import remove_stale_temporary
from infra.errors import UsageError
from infra.params import check_params
from infra.processes import RunLock, reap_leftovers, recorded_children
from infra.settings import load_settings
from infra.storage import remove_leftovers, write_json
from pipelines import arrivals, events, gates, orchestration, plan
from pipelines.workspace import PROJECT, Workspace, make_folder

Document = dict[str, Any]
looked: set[str] = set()
"""Workspaces whose raw files this process has looked for just now: the flow need not look again."""


def run(
    root: Path,
    *,
    datasets: Sequence[str] | None = None,
    steps: int | None = None,
    phantoms: bool = True,
    licence: str | None = None,
) -> Document:
    """Run the line in the workspace at `root` and return the outcome document.

    `datasets` limits the sets (default: those of the project's `params.yaml`), `steps` the training.
    With `phantoms`, the built-in phantoms stand in for what is found nowhere. `licence` limits the sets to
    those whose card says yes to that use (`gates.limited`).
    """
    started = time.monotonic()
    make_folder(root)
    params = base_params(root)
    if datasets is not None:
        params["datasets"] = [plan.known_dataset(name, Workspace(root).cards) for name in datasets]
    elif phantoms:
        params["datasets"] = plan.project_params()["datasets"]
    if steps is not None:
        params["train"] = {**params["train"], "steps": steps}
    params, params["datasets"] = gates.limited(params, params["datasets"], licence, Workspace(root).cards)
    check_params(params, str(root / "params.yaml"))
    state = Workspace(root).state
    with RunLock(state, "demo"):
        clean_up(Workspace(root))
        with events.phase("sources"):
            workspace = look_for_sources(root, params, phantoms=phantoms)
        workspace.note_seconds("phase sources", time.monotonic() - started)
        looked.add(str(root))
        try:
            return make(workspace, started)
        finally:
            looked.discard(str(root))


def look_for_sources(root: Path, params: Document | None = None, *, phantoms: bool = False) -> Workspace:
    """Find and hash raw files, and write what the stages depend on. Needs the run lock.

    Without `phantoms` also datasets that arrived in the watched place (`pipelines.watch`).
    """
    settings = load_settings()
    params, place = params or base_params(root), Workspace(root)
    if not phantoms:
        known = params["datasets"]
        params = arrivals.take(place, params, settings)
        if params["datasets"] != known:
            params, params["datasets"] = gates.limited(params, params["datasets"], None, place.cards)
    roots = plan.locate_datasets(params["datasets"], place.state, settings, with_phantoms=phantoms, workspace=place)
    workspace = Workspace.prepare(root, {**params, "datasets": list(roots)})
    plan.write_plan(workspace, roots, settings)
    plan.forget_unlisted(workspace, roots)
    if not phantoms and params["datasets"] != known:
        workspace.repo.commit_state(f"arrived: {', '.join(sorted(set(params['datasets']) - set(known)))}")
    return workspace


def make(workspace: Workspace, started: float) -> Document:
    """Make what is stale and release it; without anything stale, neither Prefect nor Ray nor torch is started."""
    from pipelines import release  # pyarrow, pandas: not for `--help`

    with recorded_children(workspace.state):
        stale = workspace.repo.stale()
        if stale:
            _forget_seconds(workspace)
            orchestration.prepare(workspace.state)
            from pipelines.flows.run import in_this_process

            outcome = in_this_process(workspace, "retrain", with_ray=True)
        else:
            # A kill before the last commit, or another `gate:` in params.yaml, leaves git behind with nothing stale.
            workspace.repo.tag_data_version()
            workspace.repo.commit_state("model: candidate and evaluation")
            outcome = {**release.release(workspace), "stages_run": []}
    outcome["changed"] = bool(outcome["stages_run"]) or outcome["changed"]
    took = release.phases(workspace) if stale else {}
    outcome["seconds"] = {**took, "total": round(time.monotonic() - started, 2)}
    outcome["workspace"] = str(workspace.root)
    return outcome


def clean_up(workspace: Workspace) -> list[str]:
    """After a kill: end what it left running, remove what it left half written. Needs the run lock."""
    ended = reap_leftovers(workspace.state)
    remove_stale_temporary(workspace.state)
    for folder in (workspace.data, workspace.root / "models", workspace.evaluation, workspace.reports):
        if folder.is_dir():
            remove_leftovers(folder)
    if workspace.root.is_dir():
        remove_leftovers(workspace.root, recursive=False)  # `.evaluation.part-tmp` and the like
    for folder in sorted(workspace.temporary.glob("*-*")):
        owner = folder.name.partition("-")[0]
        if not (owner.isdigit() and psutil.pid_exists(int(owner))):
            shutil.rmtree(folder, ignore_errors=True)
    if ended:
        events.emit("reaped", processes=ended)
    return ended


def _forget_seconds(workspace: Workspace) -> None:
    # What an earlier run took must not stand beside this run's figures; how long the scan took is this run's.
    kept = {name: value for name, value in workspace.seconds().items() if name == "phase sources"}
    write_json(workspace.state / "timings.json", kept)


def base_params(root: Path) -> Document:
    """The checked parameters of the workspace at `root`, or the project's where it has none yet."""
    path = root / "params.yaml" if (root / "params.yaml").is_file() else PROJECT / "params.yaml"
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        msg = f"{path}: not YAML: {' '.join(str(error).split())}"
        raise UsageError(msg) from error
    check_params(value, str(path))
    result: Document = value
    return result
