"""Entries of the case cache: the head is read without the body, and damage anywhere in it is seen."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from preprocessing.case_cache import CaseCache, pack, unpack
from preprocessing.schema import HASHES_SCHEMA, SHARD_SCHEMA

HASHES = [{"key": "made/case/0", "case_id": "case", "kind": "picture"}]


def _hash_rows() -> list[dict[str, object]]:
    fill = {"string": "x", "binary": b"x", "bool": False}
    return [
        {
            field.name: HASHES[0].get(field.name, None if field.nullable else fill.get(str(field.type), 0))
            for field in HASHES_SCHEMA
        }
    ]


def test_hashes_are_read_without_the_body(tmp_path: Path) -> None:
    cache, rows = CaseCache(tmp_path), _hash_rows()
    payload = pack([], {"spacing": [1.0]}, None, rows)
    cache.write("a", payload)
    head = cache.head("a")
    assert head is not None
    assert (head.columns, head.refusal) == ({"spacing": [1.0]}, None)
    assert head.hashes.equals(pa.Table.from_pylist(rows, schema=HASHES_SCHEMA))
    entry = cache.read("a")
    assert entry is not None
    assert entry.rows.schema.equals(SHARD_SCHEMA)
    assert entry.hashes.equals(head.hashes)
    # a body of other bytes and the same length: the head does not look at it, the entry does
    cache.write("a", payload[: -head.body_bytes] + bytes(head.body_bytes))
    assert cache.head("a") == head
    assert cache.read("a") is None


def test_a_flipped_bit_in_any_byte_of_the_head_and_an_older_entry_are_no_entries(tmp_path: Path) -> None:
    cache = CaseCache(tmp_path)
    payload = pack([], {}, {"reason": "spacing"}, _hash_rows())
    cache.write("a", payload)
    head = cache.head("a")
    assert head is not None
    for place in range(len(payload) - head.body_bytes):
        for bit in (1, 128):
            damaged = payload[:place] + bytes([payload[place] ^ bit]) + payload[place + 1 :]
            assert unpack(damaged) is None, place
    cache.write("a", payload.replace(b"segfoundry case 3", b"segfoundry case 2", 1))
    assert cache.head("a") is None


@pytest.mark.parametrize("change", [-1, 1])
def test_an_entry_of_another_length_is_no_entry(tmp_path: Path, change: int) -> None:
    cache, payload = CaseCache(tmp_path), pack([], {}, None)
    cache.write("a", payload[:change] if change < 0 else payload + b"x")
    assert cache.head("a") is None
    assert cache.read("a") is None
