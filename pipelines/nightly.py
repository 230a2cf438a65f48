"""The nightly audit: does what the workspace and the registry hold still agree with what they say of themselves?

Nothing is repaired here. Every check gives findings in words; `ok` is that there are none. A check that cannot be made
is a finding too, and the others are made all the same.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from infra.dvc import INGEST_PREFIX
from infra.errors import DataError, ServiceError
from infra.storage import TEMPORARY_SUFFIX, write_json
from pipelines import gates, pages, verify
from pipelines.flows.policy import can_pass
from pipelines.release import open_store
from pipelines.workspace import MODEL_NAME, Workspace
from preprocessing.schema import read_dataset_file
from registry.audit import audit_ledger
from registry.orphans import orphans as registry_orphans

Document = dict[str, Any]
FOLDER = "audits"
_KEEP = 30
_LOG = logging.getLogger(__name__)


class Unanswered(ServiceError):
    """A service did not answer a check, so the audit deserves another try; `document` is what it found without it."""

    def __init__(self, message: str, document: Document) -> None:
        super().__init__(message)
        self.document = document

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (*self.args, self.document))


def audit(place: Workspace) -> Document:
    """Make all checks; `{"ok", "at", "workspace", "checks": {name: {"ok", "findings"}}}`.

    Raises Unanswered, with the document, where a check failed for something that may pass (`policy.can_pass`).
    """
    checks: dict[str, Callable[[Workspace], list[str]]] = {
        "shards": shards,
        "leakage": leakage,
        "ledger": ledger,
        "orphans in files": files,
        "orphans in the registry": registry,
    }
    at = datetime.now(UTC)
    found: dict[str, list[str]] = {}
    passing: list[str] = []
    for name, check in checks.items():
        try:
            found[name] = check(place)
        except Exception as error:  # noqa: BLE001 - whatever it is, the other checks are made
            _LOG.warning("audit: %s: %s", name, error, exc_info=error)
            said = " ".join(str(error).split())[:500]
            found[name] = [f"expected a check that can be made, found {type(error).__name__}: {said}"]
            if can_pass(error):
                passing.append(f"{name}: {said}")
    document = {
        "ok": not any(found.values()),
        "at": at.isoformat(timespec="seconds"),
        "workspace": str(place.root),
        "checks": {name: {"ok": not findings, "findings": findings} for name, findings in found.items()},
    }
    if passing:
        raise Unanswered("; ".join(passing), document)
    return document


def keep(place: Workspace, document: Document) -> None:
    """Keep an audit as `.segfoundry/audits/<at>.json`, and the newest thirty."""
    folder, at = place.state / FOLDER, datetime.fromisoformat(document["at"])
    write_json(folder / f"{at:%Y%m%dT%H%M%S}.json", document)
    for old in sorted(folder.glob("*.json"))[:-_KEEP]:
        old.unlink()


def shards(place: Workspace) -> list[str]:
    """Every shard against its SHA-256 and its rows, every manifest against its digest; and that there are all."""
    found = []
    built = pages.ingested(place)
    for name in built:
        found += [f"{name}: {problem}" for problem in verify.dataset(place, name)["problems"]]
    recorded = {name.removeprefix(INGEST_PREFIX) for name in place.repo.lock() if name.startswith(INGEST_PREFIX)}
    listed = set(place.params().datasets)
    found += [
        f"{name}: expected the dataset version that dvc.lock records in data/{name}, found none. Bring it back: "
        f"dvc checkout data/{name}"
        for name in sorted(recorded & listed - set(built))
    ]
    return found


def leakage(place: Workspace) -> list[str]:
    """No patient and no picture in two splits."""
    names = pages.ingested(place)
    if not names:
        return []
    try:
        gates.refuse_leakage(place, names)
    except DataError as error:
        return str(error).split("\n")
    return []


def ledger(place: Workspace) -> list[str]:
    """The chain of promotions, and that MLflow's aliases are what it says."""
    found = audit_ledger(open_store(place))
    return [*found["problems"], *found["drift"]]


def files(place: Workspace) -> list[str]:
    """Files that belong to nothing: shards no version names, folders no stage makes, what a kill left half written."""
    found = []
    listed = set(place.params().datasets)
    built = set(pages.ingested(place))
    for folder in sorted(place.data.iterdir()) if place.data.is_dir() else ():
        if folder.name not in listed and not folder.name.startswith("."):
            found.append(f"data/{folder.name}: expected a dataset of params.yaml, found a folder that no stage makes")
    for name in sorted(built):
        named = set(read_dataset_file(place.data / name)["shards"])
        there = {path.relative_to(place.data / name).as_posix() for path in (place.data / name).rglob("shard-*")}
        found += [f"data/{name}/{file}: a shard that its dataset.json does not name" for file in sorted(there - named)]
    found += [f"{path.relative_to(place.root)}: a temporary file of a killed run" for path in _half_written(place)]
    for folder in sorted(place.temporary.glob("*-*")):
        owner = folder.name.partition("-")[0]
        if not (owner.isdigit() and psutil.pid_exists(int(owner))):
            found.append(f"{folder.relative_to(place.root)}: left by process {owner}, which has ended")
    return found


def _half_written(place: Workspace) -> list[Path]:
    return [
        Path(folder) / name
        for top in (place.data, place.root / "models", place.evaluation, place.reports)
        for folder, folders, names in os.walk(top)
        for name in sorted([*folders, *names])
        if name.startswith(".") and name.endswith(TEMPORARY_SUFFIX.removeprefix("."))
    ]


def registry(place: Workspace) -> list[str]:
    """MLflow runs and model files that no version names, and versions whose run or report is gone."""
    store = open_store(place)
    found = registry_orphans(store, MODEL_NAME)
    known = {str(one.version) for one in store.versions(MODEL_NAME)}
    found += [
        f"{path.relative_to(place.root)}: a report of a version that the registry does not know"
        for path in sorted(place.reports.glob("*.html"))
        if path.stem.isdigit() and path.stem not in known
    ]
    return found
