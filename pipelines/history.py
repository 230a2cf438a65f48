"""Manifests through time: every dataset version that a data version of the workspace holds."""

from __future__ import annotations

import io
import json
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from infra import repository
from infra.dvc import INGEST_PREFIX
from infra.errors import ServiceError, UsageError
from pipelines.workspace import Workspace
from preprocessing.diff import diff_manifests, nothing_changed
from preprocessing.schema import DATASET_FILE, FINGERPRINT_FILE, MANIFEST_FILE, MANIFEST_SCHEMA


def data_versions(workspace: Workspace) -> list[str]:
    """All data versions, oldest first."""
    return repository.data_tags(workspace.root)


def compare(workspace: Workspace, old: str, new: str, dataset: str = "") -> dict[str, dict[str, Any]]:
    """Dataset -> what changed between two data versions; all datasets of either, or one.

    "state" is "added", "removed", "unchanged" (the same bytes: no manifest is read) or "changed"; the last two with
    what `preprocessing.diff.diff_manifests` says and "relicensed": {"from", "to"} where the licence is another,
    else null. UsageError for an unknown data version or a dataset in neither.
    """
    digests = [_digests(workspace, tag) for tag in (old, new)]
    names = sorted({*digests[0], *digests[1]})
    if dataset and dataset not in names:
        msg = f"neither {old} nor {new} has the dataset {dataset}; they have {', '.join(names) or 'none'}"
        raise UsageError(msg)
    found: dict[str, dict[str, Any]] = {}
    for name in [dataset] if dataset else names:
        before, after = (one.get(name) for one in digests)
        if before is None or after is None:
            found[name] = {"state": "added" if before is None else "removed"}
        elif before == after:
            samples = told(workspace, name, new)["counts"]["samples"]
            found[name] = {"state": "unchanged", **nothing_changed(samples), "relicensed": None}
        else:
            found[name] = {"state": "changed", **_compare_one(workspace, name, old, new)}
    return found


def _compare_one(workspace: Workspace, dataset: str, old: str, new: str) -> dict[str, Any]:
    before, after = (told(workspace, dataset, tag)["licence"] for tag in (old, new))
    with tempfile.TemporaryDirectory() as folder:
        paths = Path(folder) / "old.parquet", Path(folder) / "new.parquet"
        for path, tag in zip(paths, (old, new), strict=True):
            path.write_bytes(workspace.repo.read_bytes_at(f"data/{dataset}/{MANIFEST_FILE}", tag))
        found = diff_manifests(paths[0], paths[1])
    return {**found, "relicensed": {"from": before, "to": after} if before != after else None}


def told(workspace: Workspace, dataset: str, tag: str) -> dict[str, Any]:
    """The `dataset.json` of a dataset at a data version."""
    value: dict[str, Any] = json.loads(workspace.repo.read_bytes_at(f"data/{dataset}/{DATASET_FILE}", tag))
    return value


def _digests(workspace: Workspace, tag: str) -> dict[str, str]:
    """Dataset -> what DVC calls its bytes at a data version."""
    _known(workspace, tag)
    return {
        name.removeprefix(INGEST_PREFIX): str(entry["outs"][0]["md5"])
        for name, entry in workspace.repo.lock_at(tag).items()
        if name.startswith(INGEST_PREFIX)
    }


def _known(workspace: Workspace, tag: str) -> None:
    versions = data_versions(workspace)
    if tag not in versions:
        msg = f"no data version {tag!r} in {workspace.root}; known: {', '.join(versions) or 'none yet'}"
        raise UsageError(msg)


def manifest_at(workspace: Workspace, dataset: str, tag: str) -> pa.Table:
    """The manifest of a dataset at a data version."""
    _check_known(workspace, dataset, tag)
    payload = workspace.repo.read_bytes_at(f"data/{dataset}/{MANIFEST_FILE}", tag)
    return pq.read_table(io.BytesIO(payload), schema=MANIFEST_SCHEMA)


def _check_known(workspace: Workspace, dataset: str, tag: str) -> None:
    _known(workspace, tag)
    if f"{INGEST_PREFIX}{dataset}" not in workspace.repo.lock_at(tag):
        msg = f"data version {tag} has no dataset {dataset}"
        raise UsageError(msg)


def fingerprint_at(workspace: Workspace, dataset: str, tag: str) -> dict[str, Any]:
    """The fingerprint of a dataset at a data version; `UsageError` where that version was made without one."""
    _check_known(workspace, dataset, tag)
    try:
        payload = workspace.repo.read_bytes_at(f"data/{dataset}/{FINGERPRINT_FILE}", tag)
    except ServiceError as error:
        msg = f"{dataset} at {tag}: expected a fingerprint, found none: it was ingested before there were any. {error}"
        raise UsageError(msg) from error
    value: dict[str, Any] = json.loads(payload)
    return value


def version_before(workspace: Workspace, dataset: str, tag: str) -> str | None:
    """The newest data version before `tag` that holds the dataset with other contents; None where there is none."""
    name = f"{INGEST_PREFIX}{dataset}"
    versions = data_versions(workspace)
    now = workspace.repo.lock_at(tag).get(name)
    for older in reversed(versions[: versions.index(tag)] if tag in versions else []):
        then = workspace.repo.lock_at(older).get(name)
        if now and then and then["outs"][0]["md5"] != now["outs"][0]["md5"]:
            return older
    return None


def drift_since_before(workspace: Workspace, dataset: str, tag: str) -> dict[str, Any] | None:
    """`preprocessing.fingerprint.drift` of a dataset at `tag` from the version before, with "old" and "new".

    None where there is no version before, or it has no fingerprint.
    """
    from preprocessing.fingerprint import drift

    older = version_before(workspace, dataset, tag)
    if older is None:
        return None
    try:
        pair = [fingerprint_at(workspace, dataset, version) for version in (older, tag)]
    except UsageError:
        return None
    return {"dataset": dataset, "old": older, "new": tag, **drift(pair[0], pair[1])}
