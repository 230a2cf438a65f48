"""Remember what one case gave, so that a killed build goes on and an added case costs one case.

An entry is one file named by the digest of everything that decided it: SHA-256 of the rest, then an
Arrow stream of rows whose metadata holds the case's columns or its refusal, then one of its hashes. A damaged
entry is no entry.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from infra.storage import TEMPORARY_SUFFIX, sha256_bytes
from preprocessing.schema import HASHES_SCHEMA, SHARD_SCHEMA

_META = b"segfoundry_case"


@dataclass(frozen=True)
class Entry:
    """What a case gave: rows (of `SHARD_SCHEMA`, group and split empty), columns and hashes, or a refusal."""

    rows: pa.Table
    columns: dict[str, Any]
    refusal: dict[str, str] | None
    hashes: pa.Table


def pack(
    rows: list[dict[str, Any]],
    columns: dict[str, Any],
    refusal: dict[str, str] | None,
    hashes: list[dict[str, Any]] | None = None,
) -> bytes:
    """An entry as bytes."""
    meta = json.dumps({"columns": columns, "refusal": refusal}, sort_keys=True)
    schema = SHARD_SCHEMA.with_metadata({_META: meta.encode()})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_table(pa.Table.from_pylist(rows, schema=schema))
    with pa.ipc.new_stream(sink, HASHES_SCHEMA) as writer:
        writer.write_table(pa.Table.from_pylist(hashes or [], schema=HASHES_SCHEMA))
    body: bytes = sink.getvalue().to_pybytes()
    return sha256_bytes(body).encode() + body


def unpack(payload: bytes) -> Entry | None:
    """The entry, or None where its bytes are not what was written."""
    if sha256_bytes(payload[64:]).encode() != payload[:64]:
        return None
    source = pa.BufferReader(memoryview(payload)[64:])
    table = pa.ipc.open_stream(source).read_all()
    hashes = pa.ipc.open_stream(source).read_all()
    meta = json.loads(table.schema.metadata[_META])
    return Entry(table.replace_schema_metadata(SHARD_SCHEMA.metadata), meta["columns"], meta["refusal"], hashes)


class CaseCache:
    """Entries of one dataset in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, key: str) -> Path:
        """Where the entry of `key` lies."""
        return self.folder / f"{key}.case"

    def read(self, key: str) -> Entry | None:
        """The entry of `key`, or None where there is none or it is damaged."""
        try:
            return unpack(self.path(key).read_bytes())
        except FileNotFoundError:
            return None

    def write(self, key: str, payload: bytes) -> None:
        """Keep an entry, by a rename. Without fsync: one that a power cut tears is no entry, and is made again."""
        target = self.path(key)
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")
        temporary.write_bytes(payload)
        temporary.replace(target)

    def keep_only(self, keys: set[str]) -> None:
        """Drop entries that the finished build did not use."""
        for path in self.folder.glob("*.case"):
            if path.stem not in keys:
                path.unlink(missing_ok=True)
