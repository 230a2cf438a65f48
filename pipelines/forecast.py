"""`segfoundry flow run retrain --dry-run`: what would be done and why, touching nothing.

The leaves of the graph (inventories, recipes) are written into a scratch copy of the workspace's small files, and held
against those of the workspace. Which stages follow is DVC's graph. Raw files in a remote mirror or watched place are
not fetched: a listing is held against the workspace's copy of them.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from infra.dvc import INGEST_PREFIX
from infra.settings import load_settings
from infra.storage import read_json
from pipelines import arrivals, costs, demo, events, gates, plan, release, starts
from pipelines.requests import open_requests
from pipelines.workspace import MODEL_NAME, Workspace

Document = dict[str, Any]
_COPIED = ("params.yaml", "withdrawn.jsonl", "cards", "sources", "recipes")
_COPIED_STATE = ("roots.json", "hashes", "names")


def forecast(place: Workspace) -> Document:
    """What `retrain` would do.

    `{"workspace", "would_run": bool, "stages": [{"name", "why": [str], "expected_s": float or None}], "datasets":
    [{"name", "state": "new"|"changed"|"withdrawn"|"recipe changed"|"unchanged", "why"}], "start": str,
    "requests": […], "expected_s": float or None, "arrivals_left": [{"folder", "reason"}]}`. `expected_s` is None where
    a stage was never timed here.
    """
    left: list[Document] = []

    def hear(event: Document) -> None:
        if event["kind"] == "arrival" and not event["taken"]:
            left.append({"folder": event["folder"], "reason": event["reason"]})

    with tempfile.TemporaryDirectory(prefix="segfoundry-dry-run-") as folder, events.listening(hear):
        scratch = _scratch(place, Path(folder) / place.root.name)
        params, remote = _look(place, scratch)
        datasets = [_dataset(place, scratch, name, remote.get(name)) for name in params["datasets"]]
        datasets += [
            {"name": name, "state": "removed", "why": "params.yaml does not list it any more"}
            for name in sorted(_recorded(place) - set(params["datasets"]))
        ]
        stages = _stages(place, scratch, datasets, {name: int(one["bytes"]) for name, one in remote.items()})
    known = [one["expected_s"] for one in stages]
    return {
        "workspace": str(place.root),
        "would_run": bool(stages),
        "stages": stages,
        "datasets": datasets,
        "start": _start(place),
        "requests": _requests(place),
        "arrivals_left": left,
        "expected_s": round(sum(known), 1) if stages and None not in known else None,
    }


def _scratch(place: Workspace, root: Path) -> Workspace:
    scratch = Workspace(root)
    scratch.state.mkdir(parents=True)
    for source, target, names in ((place.root, root, _COPIED), (place.state, scratch.state, _COPIED_STATE)):
        for name in names:
            if (source / name).is_dir():
                shutil.copytree(source / name, target / name)
            elif (source / name).is_file():
                shutil.copyfile(source / name, target / name)
    return scratch


def _look(place: Workspace, scratch: Workspace) -> tuple[Document, dict[str, dict[str, str]]]:
    """Write the leaves into the scratch workspace as a run would; its parameters, and the datasets not fetched yet."""
    settings = load_settings()
    params = arrivals.take(scratch, demo.base_params(scratch.root), settings, look_from=place)
    params, params["datasets"] = gates.limited(params, params["datasets"], None, scratch.cards)
    (scratch.root / "params.yaml").write_text(json.dumps(params), encoding="utf-8")  # JSON is YAML
    arrived = {name: one for name, one in scratch.roots().items() if one["kind"] == plan.REMOTE}
    names = [name for name in params["datasets"] if name not in arrived]
    roots = plan.locate_datasets(
        names, scratch.state, settings, with_phantoms=False, workspace=scratch, look_from=place
    )
    remote = {name: one for name, one in roots.items() if one["kind"] == plan.REMOTE}
    plan.write_plan(scratch, {name: one for name, one in roots.items() if name not in remote}, settings)
    return params, remote | arrived


def _recorded(place: Workspace) -> set[str]:
    return {name.removeprefix(INGEST_PREFIX) for name in place.repo.lock() if name.startswith(INGEST_PREFIX)}


def _dataset(place: Workspace, scratch: Workspace, name: str, remote: dict[str, str] | None) -> Document:
    old, new = (_bytes(one.inventory(name)) for one in (place, scratch))
    before, after = (_json(one.recipe(name)) for one in (place, scratch))
    if name not in _recorded(place):
        said = f"; {remote['reason']}" if remote else ""
        return {"name": name, "state": "new", "why": f"no data version holds it{said}"}
    if remote:
        return {"name": name, "state": "changed", "why": f"raw files: {remote['reason']}"}
    if old != new:
        lines = [set(one.splitlines()) for one in (old, new)]
        gone, came = len(lines[0] - lines[1]), len(lines[1] - lines[0])
        return {"name": name, "state": "changed", "why": f"raw files: {came} new or changed, {gone} gone or changed"}
    if before.get("withdrawn") != after.get("withdrawn") or _waits(place, name):
        count = len(after.get("withdrawn", ()))
        return {"name": name, "state": "withdrawn", "why": f"{count} tombstones keep cases out of it"}
    if before != after:
        keys = sorted(key for key in {*before, *after} if before.get(key) != after.get(key))
        return {"name": name, "state": "recipe changed", "why": f"its recipe says something else: {', '.join(keys)}"}
    return {"name": name, "state": "unchanged", "why": ""}


def _waits(place: Workspace, name: str) -> bool:
    """Whether tombstones were written into the recipe since the last ingest."""
    withdrawn = bool(_json(place.recipe(name)).get("withdrawn"))
    return withdrawn and f"{INGEST_PREFIX}{name}" in place.repo.changed()


def _stages(place: Workspace, scratch: Workspace, datasets: list[Document], sizes: dict[str, int]) -> list[Document]:
    """The stages that would run, in order, with the reason of each and what it will take.

    `sizes`: bytes of the datasets whose raw files are not here yet.
    """
    changed = place.repo.changed()
    why: dict[str, list[str]] = {}
    for one in datasets:
        stage = f"{INGEST_PREFIX}{one['name']}"
        if one["state"] not in ("unchanged", "removed"):
            why[stage] = [f"{one['state']}: {one['why']}"]
        elif stage in changed:
            why[stage] = _dvc_says(changed[stage])
    data = [stage.removeprefix(INGEST_PREFIX) for stage in why]
    data += [one["name"] for one in datasets if one["state"] == "removed"]
    trained = [f"data changes: {', '.join(data)}"] if data else []
    for stage in ("train", "evaluate"):
        reasons = list(trained)
        if _without_pin(place.recipe(stage)) != _without_pin(scratch.recipe(stage)):
            reasons.append("its recipe or the code behind it changed")
        if stage in changed:
            reasons += [one for one in _dvc_says(changed[stage]) if one not in reasons]
        if stage == "evaluate" and "train" in why:
            reasons.append("there is a new candidate")
        if reasons:
            why[stage] = reasons
    return [
        {"name": stage, "why": reasons, "expected_s": _expected(place, scratch, stage, sizes)}
        for stage, reasons in why.items()
    ]


def _expected(place: Workspace, scratch: Workspace, stage: str, sizes: dict[str, int]) -> float | None:
    name = stage.removeprefix(INGEST_PREFIX)
    size = sizes.get(name) or costs.source_bytes(scratch, name) if stage.startswith(INGEST_PREFIX) else 0
    seconds = costs.expected_s(place, stage, size)
    return None if seconds is None else round(seconds, 1)


def _dvc_says(changes: list[Any]) -> list[str]:
    """DVC's `{"changed deps": {path: "modified"}}` in words."""
    said = []
    for change in changes:
        for kind, paths in change.items() if isinstance(change, dict) else ():
            said += [f"{kind.removeprefix('changed ')}: {path} {how}" for path, how in paths.items()]
        if isinstance(change, str):
            said.append(change)
    return said or ["it has not run yet"]


def _start(place: Workspace) -> str:
    wanted = place.params().train.start
    if wanted != starts.FROM_CHAMPION:
        return wanted or "our own initialisation"
    if not _has_registry(place):
        return "our own initialisation: no champion yet"
    number, why = starts.champion_of_now(place, release.open_store(place))
    return f"{MODEL_NAME} version {number}, the champion" if number else f"our own initialisation: {why}"


def _has_registry(place: Workspace) -> bool:
    """Whether there is a registry to ask: opening the default one would make it."""
    return not place.tracking_uri.startswith("sqlite:///") or (place.root / "mlflow.db").is_file()


def _requests(place: Workspace) -> list[Document]:
    """Requests for a retraining that no version has answered; none needs a registry that is not there yet."""
    versions = release.open_store(place).versions(MODEL_NAME) if _has_registry(place) else []
    return open_requests(place, versions)


def _bytes(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


def _json(path: Path) -> Document:
    value: Document = read_json(path) if path.is_file() else {}
    return value


def _without_pin(path: Path) -> Document:
    return {key: value for key, value in _json(path).items() if key != starts.PIN}
