"""Remember what one case gave, so that a killed build goes on and an added case costs one case.

An entry is one file named by the digest of everything that decided it. Its head says what the case gave, without
pixels: columns or refusal, and length and SHA-256 of the body, an Arrow stream of rows. Heads are enough to know
what is there; bodies are read only for shards that are put together. A damaged entry is no entry.
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
from preprocessing.schema import SHARD_SCHEMA

_MAGIC = b"segfoundry case 2\n"
_LENGTH = 8  # bytes of the head's length, little-endian
_DIGEST = 64  # hex digits


@dataclass(frozen=True)
class Head:
    """What a case gave, without its rows; `body_bytes` is their size with pixels."""

    columns: dict[str, Any]
    refusal: dict[str, str] | None
    body_bytes: int
    body_sha256: str


@dataclass(frozen=True)
class Entry:
    """What a case gave: rows (of `SHARD_SCHEMA`, group and split empty) and columns, or a refusal."""

    rows: pa.Table
    columns: dict[str, Any]
    refusal: dict[str, str] | None


def pack(rows: list[dict[str, Any]], columns: dict[str, Any], refusal: dict[str, str] | None) -> bytes:
    """An entry as bytes."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, SHARD_SCHEMA) as writer:
        writer.write_table(pa.Table.from_pylist(rows, schema=SHARD_SCHEMA))
    body = memoryview(sink.getvalue())
    digest = hashlib.sha256(body).hexdigest()
    told = {"columns": columns, "refusal": refusal, "body_bytes": len(body), "body_sha256": digest}
    head = json.dumps(told, sort_keys=True).encode()
    return b"".join((_MAGIC, len(head).to_bytes(_LENGTH, "little"), sha256_bytes(head).encode(), head, body))


def unpack(payload: bytes) -> Entry | None:
    """The entry, or None where its bytes are not what was written."""
    source = pa.BufferReader(payload)
    head = _read_head(source)
    if head is None:
        return None
    body = memoryview(payload)[source.tell() :]
    if len(body) != head.body_bytes or hashlib.sha256(body).hexdigest() != head.body_sha256:
        return None
    return Entry(pa.ipc.open_stream(pa.py_buffer(body)).read_all(), head.columns, head.refusal)


def _read_head(source: BinaryIO | pa.NativeFile) -> Head | None:
    """The head at the start of an entry, or None where it is not what was written; `source` stands behind it then."""
    start = source.read(len(_MAGIC) + _LENGTH + _DIGEST)
    if len(start) != len(_MAGIC) + _LENGTH + _DIGEST or not start.startswith(_MAGIC):
        return None
    head = source.read(int.from_bytes(start[len(_MAGIC) : -_DIGEST], "little"))
    return Head(**json.loads(head)) if sha256_bytes(head).encode() == start[-_DIGEST:] else None


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
