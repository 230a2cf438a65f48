"""Tables to files: which shard a case is in, Parquet bytes that depend on nothing but the rows, and what is there.

`ShardMemory` knows from what each shard of a folder was made, so that a shard none of whose cases changed is
neither put together nor written again.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from infra.storage import digest_of, sha256_bytes, sha256_file, write_bytes, write_json
from preprocessing.schema import SHARD_SCHEMA

# Small row groups: a reader that wants one sample reads tens, not thousands.
_ROWS_A_GROUP = 64
_MEMORY_VERSION = 1
_WRITER = 1  # raise it when `parquet_bytes` writes other bytes for the same rows: remembered shards are made again
_REPEATED = ["dataset", "case_id", "group_id", "modality", "split", "axis", "image_format", "recipe_sha256", "shard"]


def shard_count(payload_bytes: int, target_bytes: int) -> int:
    """How many shards: a power of two, so that growing data moves cases only when it has doubled."""
    count = 1
    while count * target_bytes < payload_bytes:
        count *= 2
    return count


def shard_of(dataset: str, case_id: str, count: int) -> int:
    """The shard of a case: by its key alone, so that a new case touches one shard."""
    digest = hashlib.blake2b(f"{dataset}\0{case_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") * count >> 64


def shard_name(index: int) -> str:
    """File name of a shard."""
    return f"shard-{index:05d}.parquet"


def parquet_bytes(table: pa.Table) -> bytes:
    """A table as Parquet, with writer options fixed here: equal rows, equal bytes on one pyarrow."""
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        row_group_size=_ROWS_A_GROUP if "image" in table.column_names else 131_072,
        compression="zstd",
        compression_level=1,
        use_dictionary=[name for name in _REPEATED if name in table.column_names],
        write_page_checksum=True,
        version="2.6",
    )
    payload: bytes = sink.getvalue().to_pybytes()
    return payload


def write_if_changed(target: Path, payload: bytes) -> str:
    """Write `payload` atomically unless the file already holds it; return its SHA-256."""
    digest = sha256_bytes(payload)
    if not (target.is_file() and target.stat().st_size == len(payload) and sha256_file(target) == digest):
        write_bytes(target, payload)
    return digest


def table_of(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows as a table of exactly `schema`; a missing column is null, which a non-null field refuses."""
    table = pa.Table.from_pylist(rows, schema=schema)
    table.validate(full=True)
    return table


def without_pixels(shard: Path) -> pa.Table:
    """The rows of a shard without their payload; only those columns are read."""
    columns = [name for name in SHARD_SCHEMA.names if name != "image"]
    return pq.read_table(shard, columns=columns, schema=SHARD_SCHEMA)


class ShardMemory:
    """From what each shard in `folder` was made, in a file of this machine; without a file nothing is remembered.

    A shard is taken for what it was while its size, times and inode are; if only those differ (DVC put the file
    there again), its SHA-256 decides.
    """

    def __init__(self, file: Path | None, folder: Path) -> None:
        self._file = file
        self._folder = folder
        self._known = _read_memory(file)
        self._now: dict[str, dict[str, Any]] = {}
        self.reused = 0

    def recall(self, name: str, made_of: list[Any]) -> str | None:
        """The SHA-256 of shard `name` where it is still the one that was made of `made_of`, else None."""
        known, path = self._known.get(name), self._folder / name
        if known is None or known["made_of"] != _made_of(made_of) or not path.is_file():
            return None
        if known["stamp"] != _stamp(path) and sha256_file(path) != known["sha256"]:
            return None
        self.remember(name, made_of, known["sha256"])
        self.reused += 1
        return str(known["sha256"])

    def remember(self, name: str, made_of: list[Any], sha256: str) -> None:
        """Note what a shard that lies in the folder was made of."""
        self._now[name] = {"made_of": _made_of(made_of), "sha256": sha256, "stamp": _stamp(self._folder / name)}

    def save(self) -> None:
        """Write down the shards of this build and forget all others."""
        if self._file is not None:
            write_json(self._file, {"version": _MEMORY_VERSION, "shards": self._now})


def _made_of(parts: list[Any]) -> str:
    return digest_of([pa.__version__, _WRITER, parts])


def _stamp(path: Path) -> list[int]:
    found: os.stat_result = path.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def _read_memory(file: Path | None) -> dict[str, dict[str, Any]]:
    """What was written down; nothing where there is nothing that can be read."""
    if file is None or not file.is_file():
        return {}
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return {}
    if not isinstance(value, dict) or value.get("version") != _MEMORY_VERSION:
        return {}
    shards: dict[str, dict[str, Any]] = value["shards"]
    return shards
