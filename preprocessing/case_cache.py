"""Remember what one case gave, so that a killed build goes on and an added case costs one case.

An entry is one file named by the digest of everything that decided it. Its head says what the case gave, without
pixels: columns or refusal, length and SHA-256 of the body, and an Arrow stream of the case's hashes. The body is an
Arrow stream of rows. Heads are enough to know what is there and to find duplicates; bodies are read only for shards
that are put together. A damaged entry is no entry.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from infra.storage import TEMPORARY_SUFFIX, sha256_bytes
from preprocessing.schema import HASHES_SCHEMA, SHARD_SCHEMA

_MAGIC = b"segfoundry case 3\n"
_LENGTH = 8  # bytes of each of the head's two lengths, little-endian
_DIGEST = 64  # hex digits of the SHA-256 of lengths, told and hashes
_START = len(_MAGIC) + 2 * _LENGTH + _DIGEST


@dataclass(frozen=True)
class Head:
    """What a case gave, without its rows; `body_bytes` is their size with pixels, `hash_stream` its hashes in Arrow."""

    columns: dict[str, Any]
    refusal: dict[str, str] | None
    body_bytes: int
    body_sha256: str
    hash_stream: bytes

    @property
    def hashes(self) -> pa.Table:
        """The case's rows of `HASHES_SCHEMA`."""
        return pa.ipc.open_stream(self.hash_stream).read_all()


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
    body = memoryview(_stream(rows, SHARD_SCHEMA))
    hashed = _stream(hashes or [], HASHES_SCHEMA).to_pybytes()
    digest = hashlib.sha256(body).hexdigest()
    described = {"columns": columns, "refusal": refusal, "body_bytes": len(body), "body_sha256": digest}
    told = json.dumps(described, sort_keys=True).encode()
    lengths = b"".join(len(part).to_bytes(_LENGTH, "little") for part in (told, hashed))
    return b"".join((_MAGIC, lengths, sha256_bytes(lengths + told + hashed).encode(), told, hashed, body))


def _stream(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_table(pa.Table.from_pylist(rows, schema=schema))
    return sink.getvalue()


def unpack(payload: bytes) -> Entry | None:
    """The entry, or None where its bytes are not what was written."""
    source = pa.BufferReader(payload)
    head = _read_head(source)
    if head is None:
        return None
    body = memoryview(payload)[source.tell() :]
    if len(body) != head.body_bytes or hashlib.sha256(body).hexdigest() != head.body_sha256:
        return None
    return Entry(pa.ipc.open_stream(pa.py_buffer(body)).read_all(), head.columns, head.refusal, head.hashes)


def _read_head(source: BinaryIO | pa.NativeFile) -> Head | None:
    """The head at the start of an entry, or None where it is not what was written; `source` stands behind it then."""
    end = source.seek(0, 2)
    source.seek(0)
    start = source.read(_START)
    if len(start) != _START or not start.startswith(_MAGIC):
        return None
    lengths = start[len(_MAGIC) : -_DIGEST]
    told_bytes, hashes_bytes = (int.from_bytes(part, "little") for part in (lengths[:_LENGTH], lengths[_LENGTH:]))
    if _START + told_bytes + hashes_bytes > end:  # a length that was damaged may ask for more than memory holds
        return None
    told, hashed = source.read(told_bytes), source.read(hashes_bytes)
    if sha256_bytes(lengths + told + hashed).encode() != start[-_DIGEST:]:
        return None
    return Head(**json.loads(told), hash_stream=hashed)


class CaseCache:
    """Entries of one dataset in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.damaged: set[str] = set()  # keys whose body was found damaged, and is made again

    def path(self, key: str) -> Path:
        """Where the entry of `key` lies."""
        return self.folder / f"{key}.case"

    def head(self, key: str) -> Head | None:
        """The head of `key`; None where there is none, it is damaged, or the file does not end where it should."""
        try:
            with self.path(key).open("rb") as handle:
                head = _read_head(handle)
                whole = head is not None and handle.tell() + head.body_bytes == handle.seek(0, 2)
        except FileNotFoundError:
            return None
        return head if whole else None

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
