"""What a version consists of: shards and manifest, the tables beside them, `dataset.json`."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from infra.storage import write_bytes
from preprocessing import quality, schema, shards
from preprocessing.cards import RawCase
from preprocessing.case_cache import CaseCache, Head
from preprocessing.harmonize.item import CaseItem
from preprocessing.steps.cases import entry_of
from preprocessing.steps.job import Job, Refused, place, shown_file

_SHARDS_AT_ONCE = 2  # each is in memory with its pixels while it is put together


def write_shards(
    job: Job,
    cache: CaseCache,
    kept: list[RawCase],
    items: dict[str, CaseItem],
    heads: dict[str, Head],
    out: Path,
    memory: shards.ShardMemory,
) -> tuple[pa.Table, dict[str, dict[str, Any]]]:
    """Write the shards, a few at a time, those alone that `memory` does not know; return manifest and {file: record}.

    A record is {"sha256", "rows"}.
    """
    total = sum(heads[case.case_id].body_bytes for case in kept)
    count = shards.shard_count(total, int(job.params["shards"]["target_bytes"]))
    members: dict[int, list[RawCase]] = {}
    for case in kept:
        members.setdefault(shards.shard_of(job.card.name, items[case.case_id].shown_id, count), []).append(case)
    made_of = {
        index: [[items[case.case_id].key, *place(job, case).values()] for case in cases]
        for index, cases in sorted(members.items())
    }
    known = {index: memory.recall(shards.shard_name(index), parts) for index, parts in made_of.items()}

    def made(index: int) -> tuple[int, str, pa.Table]:
        """A shard's number, SHA-256 and rows without pixels; it is written where it is not known."""
        target, sha256 = out / shards.shard_name(index), known[index]
        if sha256 is not None:
            return index, sha256, shards.without_pixels(target)
        table = pa.concat_tables(_placed(job, cache, members[index], items)).sort_by("sample_id").combine_chunks()
        table.validate(full=True)
        sha256 = shards.write_if_changed(target, shards.parquet_bytes(table))
        return index, sha256, table.drop_columns(["image"])

    parts, written = [], {}
    with ThreadPoolExecutor(_SHARDS_AT_ONCE) as pool:  # reading, hashing and Parquet release the interpreter
        done = list(pool.map(made, made_of))
    for index, sha256, part in done:
        name = shards.shard_name(index)
        memory.remember(name, made_of[index], sha256)
        written[name] = {"sha256": sha256, "rows": part.num_rows}
        part = part.append_column(schema.MANIFEST_SCHEMA.field("shard"), pa.array([name] * part.num_rows, pa.string()))
        part = part.append_column(schema.MANIFEST_SCHEMA.field("row"), pa.array(range(part.num_rows), pa.int64()))
        parts.append(part)
    # where every case was refused the version is empty, and its quarantine says why
    manifest = pa.concat_tables([schema.MANIFEST_SCHEMA.empty_table(), *parts])
    manifest = manifest.sort_by("sample_id").combine_chunks().cast(schema.MANIFEST_SCHEMA)
    shards.write_if_changed(out / schema.MANIFEST_FILE, shards.parquet_bytes(manifest))
    return manifest, written


def _placed(job: Job, cache: CaseCache, cases: list[RawCase], items: dict[str, CaseItem]) -> Iterator[pa.Table]:
    for case in cases:
        table = entry_of(cache, items[case.case_id]).rows
        for name, value in place(job, case).items():
            column = pa.array([value] * table.num_rows, pa.string())
            table = table.set_column(table.schema.get_field_index(name), schema.SHARD_SCHEMA.field(name), column)
        yield table


def write_tables(
    job: Job,
    kept: list[RawCase],
    heads: dict[str, Head],
    items: dict[str, CaseItem],
    refused: list[Refused],
    account: quality.Account,
    out: Path,
) -> pa.Table:
    """Write the cases and quarantine tables; return the latter."""
    rows = [
        {
            "dataset": job.card.name,
            "case_id": items[case.case_id].shown_id,
            **place(job, case),
            **heads[case.case_id].columns,
        }
        for case in kept
    ]
    rows.sort(key=lambda row: str(row["case_id"]))
    write_bytes(out / schema.CASES_FILE, shards.parquet_bytes(shards.table_of(rows, schema.CASES_SCHEMA)))
    out_rows = [row for _, row in refused]
    out_rows += [quality.unclaimed_row(shown_file(job, file)) for file in account.unclaimed]
    out_rows = sorted(({"dataset": job.card.name, **row} for row in out_rows), key=lambda row: row["case_id"])
    table = shards.table_of(out_rows, schema.QUARANTINE_SCHEMA)
    write_bytes(out / schema.QUARANTINE_FILE, shards.parquet_bytes(table))
    return table


def report_of(
    job: Job,
    source_kind: str,
    account: quality.Account,
    manifest: pa.Table,
    written: dict[str, dict[str, Any]],
    cases: int,
    quarantined: int,
) -> dict[str, Any]:
    """The content of `dataset.json`. What was found is counted where it was found, the rest where it was written."""
    card = job.card
    found = cases + len(account.unclaimed)
    kept = pc.count_distinct(manifest.column("case_id")).as_py()
    quality.check_sum(card, "cases", found, {"kept": kept, "quarantined": quarantined})
    split = manifest.column("split").to_pylist()
    return {
        "schema": schema.SCHEMA_VERSION,
        "dataset": card.name,
        "title": card.title,
        "modality": card.modality,
        "licence": {name: value for name, value in asdict(card.licence).items() if value},
        "citation": card.citation,
        "source_kind": source_kind,
        "evaluation_only": card.evaluation_only,
        "counts": {
            "cases_found": found,
            "cases_kept": kept,
            "cases_quarantined": quarantined,
            "samples": manifest.num_rows,
            "objects": int(pc.sum(pc.list_value_length(manifest.column("objects"))).as_py() or 0),
            **account.counts(),
        },
        "splits": {name: split.count(name) for name in schema.SPLITS},
        "manifest_digest": schema.manifest_digest(manifest),
        "recipe_sha256": job.recipe,
        "shards": written,
    }
