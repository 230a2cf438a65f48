"""A dataset version held against what it says of itself: shard hashes, row counts, manifest digest."""

from __future__ import annotations

from typing import Any

import pyarrow.parquet as pq

from infra.errors import UsageError
from infra.storage import sha256_file
from pipelines.workspace import Workspace
from preprocessing.schema import manifest_digest, read_dataset_file, read_manifest


def dataset(workspace: Workspace, name: str) -> dict[str, Any]:
    """`{"dataset", "ok", "shards", "rows", "manifest_digest", "problems"}`; UsageError where it is not built."""
    folder = workspace.data / name
    try:
        described = read_dataset_file(folder)
    except FileNotFoundError as error:
        msg = f"{folder}: no dataset version here. Run: segfoundry data ingest {name}"
        raise UsageError(msg) from error
    problems = []
    rows = 0
    for file, said in sorted(described["shards"].items()):
        path = folder / file
        if not path.is_file():
            problems.append(f"{file}: expected the shard, found no file")
            continue
        found = sha256_file(path)
        if found != said["sha256"]:
            problems.append(f"{file}: expected SHA-256 {said['sha256'][:12]}, found {found[:12]}")
            continue
        count = pq.ParquetFile(path).metadata.num_rows
        rows += count
        if count != said["rows"]:
            problems.append(f"{file}: expected {said['rows']} rows, found {count}")
    manifest = read_manifest(folder)
    digest = manifest_digest(manifest)
    if digest != described["manifest_digest"]:
        problems.append(f"manifest: expected digest {described['manifest_digest'][:12]}, found {digest[:12]}")
    if not problems and manifest.num_rows != rows:
        problems.append(f"manifest: expected the {rows} rows of the shards, found {manifest.num_rows}")
    return {
        "dataset": name,
        "ok": not problems,
        "shards": len(described["shards"]),
        "rows": rows,
        "manifest_digest": digest,
        "problems": problems,
    }
