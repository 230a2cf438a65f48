"""Whether anything of what was withdrawn is in the live shards: by id, by content hash, by pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from infra.errors import ServiceError
from pipelines.audits.record import Record
from pipelines.pages import ingested
from preprocessing.harmonize.look import pixels_digest
from preprocessing.hashes import of_version, pictures
from preprocessing.schema import HASHES_FILE, MANIFEST_FILE, read_dataset_file
from preprocessing.withdrawn import Tombstone, read_tombstones

Document = dict[str, Any]
Evidence = dict[str, str]
_WHERE = ["sample_id", "case_id", "group_id", "shard", "content_sha256"]
_MOST = 1000  # rows of evidence for each dataset


def audit(record: Record, *, shards: bool = False) -> Document:
    """{"ok", "tombstones", "searched", "evidence": [{"dataset", "sample_id", "shard", "by", "identifier"}]}.

    "by" is "id" (case or group), "content" (pixels and labels), "pixels" (of the hashes that each version keeps) or,
    with `shards`, "decoded pixels": every picture of every live shard is decoded and hashed, which takes longer.
    Exact copies are found in every dataset, not only in the one that they were withdrawn from; near ones are looked
    for when a case is withdrawn.
    """
    stones = read_tombstones(record.place.tombstones)
    names = ingested(record.place) if stones else []
    contents = _contents(record, stones) if names else {}
    pixels = {sha256: stone for stone in stones for sha256 in stone.pixels_sha256}
    evidence: list[Evidence] = []
    samples = 0
    for name in names:
        folder = record.place.data / name
        samples += int(read_dataset_file(folder)["counts"]["samples"])
        evidence += _in_manifest(folder, name, stones, contents)[:_MOST]
        evidence += list(_in_hashes(folder, name, pixels))[:_MOST]
        if shards:
            evidence += list(_in_shards(folder, name, pixels))[:_MOST]
    searched = {"datasets": names, "samples": samples, "decoded": shards}
    return {"ok": not evidence, "tombstones": len(stones), "searched": searched, "evidence": evidence}


def _contents(record: Record, stones: Sequence[Tombstone]) -> dict[str, Tombstone]:
    """Content hash -> tombstone, of every sample that a withdrawn case or group ever had and that shows something."""
    found: dict[str, Tombstone] = {}
    for dataset in sorted({stone.dataset for stone in stones}):
        own = {stone.identifier: stone for stone in stones if stone.dataset == dataset}
        seen: set[str] = set()
        for tag in record.tags:
            folder = record.datasets(tag).get(dataset)
            if folder is None or folder in seen:
                continue
            seen.add(folder)
            try:
                rows = _rows(record.file(dataset, tag, MANIFEST_FILE), list(own))
                blank = _blank(record, dataset, tag) if rows.num_rows else set()
            except ServiceError:  # its tables are gone too: tombstones know the pixels
                continue
            for row in rows.to_pylist():
                if row["sample_id"] not in blank:
                    found[row["content_sha256"]] = own.get(row["case_id"]) or own[row["group_id"]]
    return found


def _rows(manifest: Path, names: list[str]) -> pa.Table:
    filters = [[("case_id", "in", names)], [("group_id", "in", names)]]
    return pq.read_table(manifest, columns=_WHERE, filters=filters)


def _blank(record: Record, dataset: str, tag: str) -> set[str]:
    """Samples that show nothing: one black slice is like another's, and no evidence."""
    if not record.has(dataset, tag, HASHES_FILE):
        return set()
    table = pq.read_table(record.file(dataset, tag, HASHES_FILE), columns=["key", "code"])
    keys: list[str] = table.filter(pc.is_null(table.column("code"))).column("key").to_pylist()
    return set(keys)


def _in_manifest(
    folder: Path, dataset: str, stones: Sequence[Tombstone], contents: dict[str, Tombstone]
) -> list[Evidence]:
    own = {stone.identifier: stone for stone in stones if stone.dataset == dataset}
    manifest = folder / MANIFEST_FILE
    found = [
        _evidence(dataset, row, "id", own.get(row["case_id"]) or own[row["group_id"]])
        for row in (_rows(manifest, list(own)).to_pylist() if own else [])
    ]
    if contents:
        rows = pq.read_table(manifest, columns=_WHERE, filters=[("content_sha256", "in", list(contents))]).to_pylist()
        found += [_evidence(dataset, row, "content", contents[row["content_sha256"]]) for row in rows]
    return found


def _in_hashes(folder: Path, dataset: str, pixels: dict[str, Tombstone]) -> Iterator[Evidence]:
    table = of_version(folder).select(["key", "pixels_sha256", "code"])
    kept = pc.and_(
        pc.is_valid(table.column("code")), pc.is_in(table.column("pixels_sha256"), pa.array(list(pixels), pa.string()))
    )
    for row in table.filter(kept).to_pylist():
        yield _evidence(dataset, {"sample_id": row["key"]}, "pixels", pixels[row["pixels_sha256"]])


def _in_shards(folder: Path, dataset: str, pixels: dict[str, Tombstone]) -> Iterator[Evidence]:
    rows = pq.read_table(folder / MANIFEST_FILE, columns=["sample_id", "shard"]).to_pylist()
    shards = {row["sample_id"]: row["shard"] for row in rows}
    for sample, image in pictures(folder, shards):
        if stone := pixels.get(pixels_digest(image).hexdigest()):
            yield _evidence(dataset, {"sample_id": sample, "shard": shards[sample]}, "decoded pixels", stone)


def _evidence(dataset: str, row: Document, by: str, stone: Tombstone) -> Evidence:
    return {
        "dataset": dataset,
        "sample_id": str(row["sample_id"]),
        "shard": str(row.get("shard") or ""),
        "by": by,
        "identifier": f"{stone.dataset}/{stone.identifier}",
    }
