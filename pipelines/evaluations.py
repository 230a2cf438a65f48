"""`segfoundry evaluate --model … --data …`: any model on any data version, beside the stage of `dvc.yaml`."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra import repository
from infra.compute import ray_map, ray_session
from infra.dvc import INGEST_PREFIX
from infra.errors import DataError, UsageError
from pipelines import events, release
from pipelines.workspace import MODEL_NAME, Workspace
from preprocessing import schema

HERE = "."
"""The data revision of the workspace as it is."""
_REGISTERED = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[\w.-]+)|/(?P<version>v?\d+))$")
REVISIONS, _MODELS, EVALUATIONS = "revisions", "models", "evaluations"


@dataclass(frozen=True)
class Asked:
    """What is evaluated on what, and how."""

    model: str  # folder, models:/NAME@alias or models:/NAME/VERSION
    data: str = HERE  # data version, or the workspace as it is
    against: str = ""  # another model, as `model`: the champion of paired differences
    split: str = ""  # empty: as params.yaml says
    prompts: Sequence[str] = ()  # empty: as params.yaml says
    datasets: Sequence[str] = ()  # empty: all that the data version has
    out: Path | None = None  # empty: a folder of the workspace's state named after the other entries
    one_process: bool = False  # no Ray


def run(workspace: Workspace, asked: Asked) -> tuple[dict[str, Any], Path]:
    """Evaluate, and return evaluation.json with its folder. UsageError for a model or data version that is not there.

    The same again gives the same bytes; `evaluation/`, which DVC keeps, is left alone.
    """
    from training.launch import run_evaluation

    params = workspace.params().evaluate.model_dump()
    params |= {key: value for key, value in (("split", asked.split), ("prompts", list(asked.prompts))) if value}
    # decoded first: a wrong name should not wait for a model to be copied
    data_root, names = data_at(workspace, asked.data, asked.datasets)
    candidate, uri = model_folder(workspace, asked.model)
    against, other = model_folder(workspace, asked.against) if asked.against else (None, None)
    out = asked.out or workspace.state / EVALUATIONS / _name(uri, other, asked.data, params["split"])
    _refuse_foreign(out)
    with contextlib.nullcontext() if asked.one_process else ray_session(workspace.state):
        evaluation = run_evaluation(
            data_root=data_root,
            datasets=names,
            candidate=candidate,
            out=out,
            params=params,
            against=against,
            told={"data": {"revision": asked.data}, "model": {"uri": uri, "against": other}},
            spread=map if asked.one_process else ray_map,
            progress=lambda values: events.emit("progress", stage="evaluate", **values),
        )
    return evaluation, out


def model_folder(workspace: Workspace, uri: str) -> tuple[Path, str]:
    """The model folder that a URI names, and the URI by which it is found again: of an alias its version.

    A folder is looked for below the present folder, then below the workspace.
    """
    if uri.startswith("models:"):
        return _registered(workspace, uri)
    for folder in (Path(uri), workspace.root / uri):
        if (folder / "train.json").is_file() and (folder / "config.json").is_file():
            inside = folder.resolve().is_relative_to(workspace.root.resolve())
            told = folder.resolve().relative_to(workspace.root.resolve()) if inside else Path(folder.name)
            return folder, told.as_posix()  # no path of this machine in a file that travels
    msg = (
        f"--model {uri}: expected a model folder with config.json and train.json, models:/NAME@alias or "
        f"models:/NAME/VERSION, found none. The candidate of the workspace: models/candidate"
    )
    raise UsageError(msg)


def _registered(workspace: Workspace, uri: str) -> tuple[Path, str]:
    from registry.weights import fetch_candidate

    found = _REGISTERED.match(uri)
    if found is None:
        msg = f"--model {uri}: expected models:/NAME@alias or models:/NAME/VERSION, e.g. models:/{MODEL_NAME}@champion"
        raise UsageError(msg)
    name, store = found["name"], release.open_store(workspace)
    chosen = store.resolve(name, found["alias"] or found["version"])
    target = workspace.state / _MODELS / name / f"{chosen.version}-{chosen.weights_sha256[:16]}"
    return fetch_candidate(store, name, chosen.version, target), f"models:/{name}/{chosen.version}"


def data_at(workspace: Workspace, revision: str, datasets: Sequence[str] = ()) -> tuple[Path, list[str]]:
    """Folder of dataset versions as they were at a data version, and the names of those that are wanted.

    What the workspace still has is taken from there; the rest comes through DVC's cache, once.
    """
    if revision == HERE:
        known = [
            name for name in workspace.params().datasets if (workspace.data / name / schema.DATASET_FILE).is_file()
        ]
        return workspace.data, _wanted(known, datasets, "the workspace")
    tags = repository.data_tags(workspace.root)
    if revision not in tags:
        versions = ", ".join(tags) or "none"
        msg = f"--data {revision}: expected {HERE} or a data version of {workspace.root}, known: {versions}"
        raise UsageError(msg)
    stages = workspace.repo.lock_at(revision)
    known = [name.removeprefix(INGEST_PREFIX) for name in stages if name.startswith(INGEST_PREFIX)]
    names = _wanted(known, datasets, revision)
    root = workspace.state / REVISIONS / revision
    root.mkdir(parents=True, exist_ok=True)
    for name in names:
        target = root / name
        if (target / schema.DATASET_FILE).is_file() and not target.is_symlink():
            continue
        target.unlink(missing_ok=True)
        said = workspace.repo.read_bytes_at(f"data/{name}/{schema.DATASET_FILE}", revision)
        here = workspace.data / name
        if (here / schema.DATASET_FILE).is_file() and (here / schema.DATASET_FILE).read_bytes() == said:
            target.symlink_to(here.resolve())
            continue
        workspace.repo.export_at(f"data/{name}", revision, target)
        if schema.read_dataset_file(target) != json.loads(said):
            msg = f"{name} at {revision}: expected the dataset.json of DVC's cache, found another; remove {target}"
            raise DataError(msg)
    return root, names


def _wanted(known: Sequence[str], asked: Sequence[str], where: str) -> list[str]:
    if missing := sorted(set(asked) - set(known)):
        msg = f"--datasets {', '.join(missing)}: expected datasets of {where}: {', '.join(sorted(known)) or 'none'}"
        raise UsageError(msg)
    if not known:
        msg = f"{where}: expected dataset versions to evaluate on, found none. Run: segfoundry data ingest"
        raise DataError(msg)
    return [name for name in known if not asked or name in asked]


def _name(uri: str, other: str | None, revision: str, split: str) -> str:
    parts = [uri, *([f"against {other}"] if other else []), "now" if revision == HERE else revision, split]
    return "_".join(re.sub(r"[^\w.-]+", "-", part.removeprefix("models:/")).strip("-") for part in parts)


def _refuse_foreign(out: Path) -> None:
    """The folder is replaced as a whole: what is in it must be an evaluation."""
    if out.exists() and not (out / "evaluation.json").is_file() and (not out.is_dir() or any(out.iterdir())):
        msg = f"--out {out}: expected a new folder or an old evaluation, found other files; nothing was changed"
        raise UsageError(msg)
