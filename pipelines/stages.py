"""The commands of `dvc.yaml`: `python -m pipelines stage ingest <dataset> | train | evaluate`.

The flow calls the same functions in its own process, so that all stages share one Ray head.
A stage reads the workspace's files and writes its outputs; it never touches DVC or git.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from infra.compute import ray_map, ray_session
from infra.dvc import INGEST_PREFIX
from infra.errors import DataError, UsageError
from infra.remote import blocks_of
from infra.settings import load_settings
from infra.storage import digest_of, read_json
from pipelines import events, gates, starts
from pipelines.workspace import Workspace, pseudonym_key

Summary = dict[str, Any]


def ingest(workspace: Workspace, dataset: str) -> Summary:
    """Build `data/<dataset>` from its raw files; returns its `dataset.json`."""
    from preprocessing.build import build_dataset
    from preprocessing.names import found_again
    from preprocessing.sources import read_inventory

    card = workspace.card(dataset)
    inventory = workspace.inventory(card.name)
    if not inventory.is_file():
        msg = f"{inventory}: no inventory of {card.name}. Run: segfoundry data fetch {card.name}"
        raise UsageError(msg)
    record = workspace.root_of(card.name)
    recipe = read_json(workspace.recipe(card.name))  # a dependency of the stage; `roots.json` is none
    if digest_of(recipe["card"]) != digest_of(card.resolved()):
        # dvc.lock would say that the recipe file made what another card made
        msg = f"{card.name}: its card changed after the scan. Run: segfoundry data fetch {card.name}"
        raise UsageError(msg)
    secret, root = pseudonym_key(load_settings()), Path(record["path"])
    return build_dataset(
        card,
        root,
        found_again(card, read_inventory(inventory), root, secret),
        workspace.data / card.name,
        workspace.params().section("harmonize", "shards", "splits"),
        pseudonym_key=secret,
        case_cache=workspace.state / "cases",
        map_cases=ray_map,
        source_kind=recipe["source_kind"],
        withdrawn=recipe.get("withdrawn", ()),
        progress=lambda done, total: events.emit("progress", stage="ingest", dataset=card.name, done=done, total=total),
    )


def train(workspace: Workspace) -> Summary:
    """Fine-tune on the datasets of `params.yaml` that may be trained on, and write `models/candidate`."""
    from training.launch import run_training
    from training.spec import LoaderSettings

    params = workspace.params()
    names = _complete(workspace, params.datasets)
    gates.refuse_leakage(workspace, names)
    chosen, settings = gates.for_training(workspace, names), load_settings()
    return run_training(
        data_root=_remote_data(workspace, params.train.data_root, chosen) or workspace.data,
        datasets=chosen,
        out=workspace.candidate,
        params=starts.resolved(workspace, params.train.model_dump()),
        run_dir=workspace.state / "train",
        progress=_reporter("train"),
        loader=LoaderSettings(cache_dir=settings.cache_dir, cache_bytes=settings.cache_bytes),
    )


def _remote_data(workspace: Workspace, url: str, names: list[str]) -> str:
    """`train.data_root`, when its versions are the workspace's own: what DVC records was trained on, was."""
    for name in names if url else ():
        there = f"{url.rstrip('/')}/{name}/dataset.json"
        found = json.loads(b"".join(blocks_of(there)))["manifest_digest"]
        expected = read_json(workspace.data / name / "dataset.json")["manifest_digest"]
        if found != expected:
            msg = (
                f"{there}: expected the version of this workspace (manifest {expected[:12]}), found {found[:12]}. "
                f"Copy data/{name} there again, dataset.json last"
            )
            raise DataError(msg)
    return url


def evaluate(workspace: Workspace) -> Summary:
    """Measure the candidate and its start on the split that `params.yaml` names; write `evaluation`."""
    from training.launch import run_evaluation

    params = workspace.params()
    if not (workspace.candidate / "train.json").is_file():
        msg = f"{workspace.candidate}: no candidate to evaluate. Run: segfoundry train"
        raise UsageError(msg)
    names = _complete(workspace, params.datasets)
    chosen = gates.for_evaluation(workspace, names)
    gates.refuse_leakage(workspace, names)  # an evaluation-only set may have come after the training
    return run_evaluation(
        data_root=workspace.data,
        datasets=chosen,
        candidate=workspace.candidate,
        out=workspace.evaluation,
        params=params.evaluate.model_dump(),
        progress=_reporter("evaluate"),
    )


def run_stage(workspace: Workspace, name: str) -> Summary:
    """Run a stage of `dvc.yaml` by its DVC name, e.g. `ingest@BUSI`, inside a Ray session."""
    functions: dict[str, Callable[[Workspace], Summary]] = {"train": train, "evaluate": evaluate}
    started = time.monotonic()
    with ray_session(workspace.state):
        if name.startswith(INGEST_PREFIX):
            result = ingest(workspace, name.removeprefix(INGEST_PREFIX))
        elif name in functions:
            result = functions[name](workspace)
        else:
            msg = f"no such stage: {name}; expected ingest@<dataset>, train or evaluate"
            raise UsageError(msg)
    workspace.note_seconds(name, time.monotonic() - started)
    return result


def _complete(workspace: Workspace, datasets: list[str]) -> list[str]:
    missing = [name for name in datasets if not (workspace.data / name / "dataset.json").is_file()]
    if missing:
        names = ", ".join(missing)
        msg = f"{workspace.data}: expected dataset versions, found none of {names}. Run: segfoundry data ingest"
        raise DataError(msg)
    return datasets


def _reporter(stage: str) -> Callable[[dict[str, Any]], None]:
    return lambda values: events.emit("progress", stage=stage, **values)
