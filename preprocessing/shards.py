"""Tables to files: which shard a case is in, and Parquet bytes that depend on nothing but the rows."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from infra.storage import sha256_bytes, sha256_file, write_bytes

# Small row groups: a reader that wants one sample reads tens, not thousands.
_ROWS_A_GROUP = 64
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
