"""Manifests through time: every dataset version that a data version of the workspace holds."""

from __future__ import annotations

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq

from infra import repository
from infra.dvc import INGEST_PREFIX
from infra.errors import UsageError
from pipelines.workspace import Workspace
from preprocessing.schema import DATASET_FILE, MANIFEST_FILE, MANIFEST_SCHEMA
from registry.audit import Recorded, rows_of_case


def data_versions(workspace: Workspace) -> list[str]:
    """All data versions, oldest first."""
    return repository.data_tags(workspace.root)


def manifests(workspace: Workspace) -> dict[str, dict[str, Recorded]]:
    """Data version -> dataset -> its manifest, to be searched. A dataset that did not change is read once."""
    known: dict[tuple[str, str], Recorded] = {}
    found: dict[str, dict[str, Recorded]] = {}
    for tag in data_versions(workspace):
        found[tag] = {}
        for name, entry in workspace.repo.lock_at(tag).items():
            if not name.startswith(INGEST_PREFIX):
                continue
            dataset, digest = name.removeprefix(INGEST_PREFIX), entry["outs"][0]["md5"]
            if (dataset, digest) not in known:
                known[(dataset, digest)] = _recorded(workspace, dataset, tag)
            found[tag][dataset] = known[(dataset, digest)]
    return found


def _recorded(workspace: Workspace, dataset: str, tag: str) -> Recorded:
    described = json.loads(workspace.repo.read_bytes_at(f"data/{dataset}/{DATASET_FILE}", tag))
    payload = workspace.repo.read_bytes_at(f"data/{dataset}/{MANIFEST_FILE}", tag)
    return Recorded(described["manifest_digest"], lambda names: rows_of_case(io.BytesIO(payload), names))


def manifest_at(workspace: Workspace, dataset: str, tag: str) -> pa.Table:
    """The manifest of a dataset at a data version."""
    versions = data_versions(workspace)
    if tag not in versions:
        msg = f"no data version {tag!r} in {workspace.root}; known: {', '.join(versions) or 'none yet'}"
        raise UsageError(msg)
    if f"{INGEST_PREFIX}{dataset}" not in workspace.repo.lock_at(tag):
        msg = f"data version {tag} has no dataset {dataset}"
        raise UsageError(msg)
    payload = workspace.repo.read_bytes_at(f"data/{dataset}/{MANIFEST_FILE}", tag)
    return pq.read_table(io.BytesIO(payload), schema=MANIFEST_SCHEMA)
