"""A dataset version held against what it says of itself: shard hashes, row counts, manifest digest.

A file that cannot be read is a finding like any other: it names the file, what was expected, what was found, and what
mends it. What is wrong with the machine, such as a network drive that does not answer, is raised.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from infra.errors import UsageError
from infra.storage import sha256_file
from pipelines.workspace import Workspace
from preprocessing.schema import (
    CASES_FILE,
    DATASET_FILE,
    HASHES_FILE,
    MANIFEST_FILE,
    QUARANTINE_FILE,
    manifest_digest,
    read_dataset_file,
    read_manifest,
)

Document = dict[str, Any]
T = TypeVar("T")
# What a library says of bytes has no number; these are said by the system, of this one file.
_OF_THE_FILE = (None, errno.EIO, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOENT, errno.ELOOP)
_BESIDE = (CASES_FILE, QUARANTINE_FILE, HASHES_FILE)  # quoted by no digest; leakage, audits and gates read them


def dataset(workspace: Workspace, name: str) -> Document:
    """`{"dataset", "ok", "shards", "rows", "manifest_digest", "counts", "problems"}`; UsageError where it is not built.

    `counts` and `manifest_digest` are None where what tells them cannot be read.
    """
    folder = workspace.data / name
    problems: list[str] = []
    said = _read(name, DATASET_FILE, lambda: _described(folder, name), problems)
    described = said or {"shards": {}}
    rows = sum(_shard(folder, name, file, one, problems) for file, one in sorted(described["shards"].items()))
    told = _read(name, MANIFEST_FILE, lambda: _manifest(folder), problems)
    if told and said and told[0] != said["manifest_digest"]:
        problems.append(f"manifest: expected digest {said['manifest_digest'][:12]}, found {told[0][:12]}")
    if told and not problems and told[1] != rows:
        problems.append(f"manifest: expected the {rows} rows of the shards, found {told[1]}")
    for file in _BESIDE:
        if (folder / file).exists():  # versions from before there were hashes have none
            _read(name, file, partial(pq.read_table, folder / file), problems)
    return {
        "dataset": name,
        "ok": not problems,
        "shards": len(described["shards"]),
        "rows": rows,
        "manifest_digest": told[0] if told else None,
        "counts": described.get("counts"),
        "problems": problems,
    }


def _described(folder: Path, name: str) -> Document:
    try:
        found = read_dataset_file(folder)
    except FileNotFoundError as error:
        msg = f"{folder}: no dataset version here. Run: segfoundry data ingest {name}"
        raise UsageError(msg) from error
    if missing := sorted({"shards", "manifest_digest"} - set(found)):
        msg = f"no {', '.join(missing)}"
        raise ValueError(msg)
    return found


def _manifest(folder: Path) -> tuple[str, int]:
    found = read_manifest(folder)
    return manifest_digest(found), found.num_rows


def _shard(folder: Path, name: str, file: str, said: Document, problems: list[str]) -> int:
    """The rows of a shard; 0 where something is wrong with it."""
    path = folder / file
    if not path.is_file():
        problems.append(f"{file}: expected the shard, found no file. {_mend(name, file)}")
        return 0
    found = _read(name, file, lambda: sha256_file(path), problems)
    if found is None:
        return 0
    if found != said["sha256"]:
        problems.append(f"{file}: expected SHA-256 {said['sha256'][:12]}, found {found[:12]}. {_mend(name, file)}")
        return 0
    count = _read(name, file, lambda: int(pq.ParquetFile(path).metadata.num_rows), problems)
    if count is not None and count != said["rows"]:
        problems.append(f"{file}: expected {said['rows']} rows, found {count}")
    return count or 0


def _read(name: str, file: str, read: Callable[[], T], problems: list[str]) -> T | None:
    """What `read` gives; None, and a finding, where the file cannot be read."""
    try:
        return read()
    except (OSError, ValueError, TypeError, pa.ArrowException) as error:
        if isinstance(error, OSError) and error.errno not in _OF_THE_FILE:
            raise
        said = " ".join(str(getattr(error, "strerror", None) or error).split())[:200].rstrip(".")
        problems.append(
            f"{file}: expected a file that can be read, found {type(error).__name__}: {said}. {_mend(name, file)}"
        )
        return None


def _mend(name: str, file: str) -> str:
    return f"Delete data/{name}/{file} and run: segfoundry data ingest {name}"
