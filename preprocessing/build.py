"""Build one dataset version: all cases through `process`, then shards, manifest, tables, card, `dataset.json`.

The output is a function of the inventory, the recipe, the parameters and the pseudonym key: no times,
no paths. `dataset.json` is removed first and written last.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from infra.errors import DataError
from infra.storage import TEMPORARY_SUFFIX, digest_of, remove_leftovers, write_bytes, write_json, write_text
from preprocessing import dedup, fingerprint, hashes, ontology, quality, schema, shards
from preprocessing.card_page import card_page
from preprocessing.cards import DatasetCard, RawCase, card_for, cases_of
from preprocessing.case_cache import CaseCache, Entry, Head, pack
from preprocessing.deid import hide_uids, safe_ending
from preprocessing.harmonize.case import CaseItem, process
from preprocessing.harmonize.payload import decode
from preprocessing.pairing import files_below
from preprocessing.recipe import recipe_file, recipe_sha256
from preprocessing.splits import pseudonym, split_of
from preprocessing.withdrawn import withdrawn_row

__all__ = ["build_dataset", "recipe_file", "run_case"]

MapCases = Callable[[Callable[[CaseItem], tuple[str, bytes, str]], list[CaseItem]], Iterable[tuple[str, bytes, str]]]
Progress = Callable[[int, int], None]
Refused = tuple[RawCase, dict[str, str]]


@dataclass(frozen=True)
class _Job:
    """What all steps of one build share."""

    card: DatasetCard
    params: dict[str, Any]
    key: bytes
    recipe: str


def run_case(item: CaseItem) -> tuple[str, bytes, str]:
    """Process one case, wherever: (key, packed entry, name of a file that changed since the scan or "")."""
    result = process(item)
    if result.changed:
        return result.key, b"", result.changed
    rows = [{**row, **_identity(item)} for row in result.rows]
    found = hashes.rows_of(rows, item.card.name, item.shown_id) if rows else []
    return result.key, pack(rows, result.columns, result.refusal, found), ""


def build_dataset(
    card: DatasetCard,
    root: Path,
    inventory: list[dict[str, Any]],
    out: Path,
    params: dict[str, Any],
    *,
    pseudonym_key: bytes,
    case_cache: Path | None,
    map_cases: MapCases = map,
    source_kind: str,
    progress: Progress | None = None,
    withdrawn: Collection[str] = (),
) -> dict[str, Any]:
    """Build the version of `card` from the files below `root` into `out`; return `dataset.json` + what was reused.

    `inventory` lists {"file", "bytes", "sha256"}; `params` has the sections harmonize, shards, splits;
    `progress(done, total)` counts cases. Cases and groups in `withdrawn`, named as manifests name them, are not read
    and go to quarantine. Cases that `case_cache` remembers are not read again, and a shard none of whose cases
    changed is left alone: `reused_cases` and `reused_shards` in the result count them. Raises DataError where the
    folder is not what was scanned or holds no case of this card.
    """
    recipe = recipe_file(card)
    job = _Job(card, params, pseudonym_key, recipe_sha256(recipe, params["harmonize"]))
    cases = _checked_cases(job, root, inventory)
    sha256 = {str(line["file"]): str(line["sha256"]) for line in inventory}
    items = {case.case_id: _item(job, case, root, sha256) for case in cases}
    out.mkdir(parents=True, exist_ok=True)
    (out / schema.DATASET_FILE).unlink(missing_ok=True)
    remove_leftovers(out)
    with _cache(card, case_cache, out) as cache:
        live, refused = _without_withdrawn(job, cases, items, set(withdrawn))
        reused = _fill(cache, [items[case.case_id] for case in live], map_cases, progress)
        kept, heads, refused = _sort_out(cache, live, items, refused)
        kept, refused = _without_twins(job, cache, kept, refused, items, heads)
        account = quality.account(card, [str(line["file"]) for line in inventory], kept, [case for case, _ in refused])
        memory = shards.ShardMemory(case_cache / f"{card.name}.shards.json" if case_cache else None, out)
        manifest, written = _write_shards(job, cache, kept, items, heads, out, memory)
        memory.save()
        tables = _write_tables(job, kept, heads, items, refused, account, out)
        found = hashes.joined([heads[case.case_id].hashes for case in kept])
        shards.write_if_changed(out / schema.HASHES_FILE, shards.parquet_bytes(found))
        cases_table = pq.read_table(out / schema.CASES_FILE)
        write_json(out / schema.FINGERPRINT_FILE, fingerprint.fingerprint(manifest, cases_table, found))
        # what a withdrawn case once gave is not remembered either
        cache.keep_only({items[case.case_id].key for case in live})
    for path in out.glob("shard-*.parquet"):
        if path.name not in written:
            path.unlink()
    report = _report(job, source_kind, account, manifest, written, len(cases), tables.num_rows)
    write_json(
        out / schema.CONCEPTS_FILE,
        {concept: ontology.describe(concept, card.modality, card.synonyms) for concept in card.concepts},
    )
    write_text(out / schema.CARD_FILE, card_page(card, report, manifest, tables, account, out))
    write_json(out / schema.DATASET_FILE, report)
    return {**report, "reused_cases": reused - len(cache.damaged), "reused_shards": memory.reused}


@contextmanager
def _cache(card: DatasetCard, folder: Path | None, out: Path) -> Iterator[CaseCache]:
    """The entries of `card`: in `folder`, which outlives the build, else in a folder that does not.

    The latter lies in `out` under a name that the next build's `remove_leftovers` takes away after a kill.
    """
    if folder:
        remove_leftovers(folder / card.name)
        yield CaseCache(folder / card.name)
    else:
        with tempfile.TemporaryDirectory(prefix=".cases-", suffix=TEMPORARY_SUFFIX, dir=out) as spare:
            yield CaseCache(Path(spare))


def _checked_cases(job: _Job, root: Path, inventory: list[dict[str, Any]]) -> list[RawCase]:
    """The cases below `root`, all of whose files are in the inventory, and nothing of it is gone."""
    card = job.card
    on_disk = set(files_below(root))
    listed = {str(line["file"]) for line in inventory}
    gone = sorted(listed - on_disk)
    if gone:
        msg = f"{card.name}: {len(gone)} scanned file(s) are gone, first {_shown_file(job, gone[0])}. {_again(card)}"
        raise DataError(msg)
    cases = list(cases_of(card)(root))
    new = sorted({file for case in cases for file in case.files} - listed)
    if new:
        msg = f"{card.name}: {len(new)} file(s) came after the scan, first {_shown_file(job, new[0])}. {_again(card)}"
        raise DataError(msg)
    if not cases:
        patterns = " or ".join(layout.image for layout in card.layouts)
        msg = f"{card.name}: no image or label among {len(on_disk)} files; expected images named {patterns}"
        raise DataError(msg)
    return cases


def _again(card: DatasetCard) -> str:
    return f"Scan again: `segfoundry data fetch {card.name}`"


def _item(job: _Job, case: RawCase, root: Path, sha256: dict[str, str]) -> CaseItem:
    digests = {file: sha256[file] for file in case.files}
    harmonize = job.params["harmonize"]
    shown_id, shown = _shown(job, case.case_id), {file: _shown_file(job, file) for file in case.files}
    identity = asdict(case)
    identity.update(group="", split="")  # neither decides what a row says
    return CaseItem(
        card=card_for(job.card, case),
        case=case,
        root=str(root),
        sha256=digests,
        orientation=str(harmonize["orientation"]),
        min_object_area_px=int(harmonize["min_object_area_px"]),
        image_codec=str(harmonize.get("image_codec", "png")),
        shown_id=shown_id,
        shown_files=shown,
        recipe=job.recipe,
        key=digest_of([job.recipe, identity, digests, shown_id, shown]),
    )


def _shown(job: _Job, case_id: str) -> str:
    if job.card.public:
        return hide_uids(case_id, job.card.domain, job.key)
    return pseudonym(job.card.domain, case_id, job.key, "c")


def _shown_file(job: _Job, file: str) -> str:
    """A file's name as written: UIDs in it are pseudonyms, and for a closed dataset all of it, with a known ending."""
    if job.card.public:
        return hide_uids(file, job.card.domain, job.key)
    return pseudonym(job.card.domain, file, job.key, "f") + safe_ending(file)


def _identity(item: CaseItem) -> dict[str, Any]:
    """The columns of a row that a case knows; group and split are the build's."""
    return {
        "dataset": item.card.name,
        "case_id": item.shown_id,
        "group_id": "",
        "modality": item.card.modality,
        "split": "",
        "source": [{"file": item.shown_files[file], "sha256": item.sha256[file]} for file in item.case.files],
        "recipe_sha256": item.recipe,
    }


def _fill(cache: CaseCache, items: list[CaseItem], map_cases: MapCases, progress: Progress | None) -> int:
    """Make the cache hold every case; return how many it held before."""
    missing = [item for item in items if item.key in cache.damaged or cache.head(item.key) is None]
    done = reused = len(items) - len(missing)
    changed = []
    if progress:
        progress(done, len(items))
    for key, payload, file in map_cases(run_case, missing) if missing else ():
        if file:
            changed.append(file)
        else:
            cache.write(key, payload)
        done += 1
        if progress:
            progress(done, len(items))
    if changed:
        card, first = items[0].card, sorted(changed)[0]
        shown = next(item.shown_files[first] for item in items if first in item.shown_files)
        msg = (
            f"{card.name}: {len(changed)} file(s) are not what was scanned, first {shown} "
            f"(its SHA-256 is not the inventory's). {_again(card)}"
        )
        raise DataError(msg)
    return reused


def _without_withdrawn(
    job: _Job, cases: list[RawCase], items: dict[str, CaseItem], withdrawn: set[str]
) -> tuple[list[RawCase], list[Refused]]:
    """The cases that may be used, and the withdrawn ones each with its quarantine row."""
    gone = [case for case in cases if withdrawn & {items[case.case_id].shown_id, _place(job, case)["group_id"]}]
    names = {case.case_id for case in gone}
    refused = [
        (case, withdrawn_row(items[case.case_id].shown_id, items[case.case_id].shown_files[case.files[0]]))
        for case in gone
    ]
    return [case for case in cases if case.case_id not in names], refused


def _entry(cache: CaseCache, item: CaseItem) -> Entry:
    """What a case gave, its rows too; where its head was sound and its body is not, the case is made again."""
    entry = cache.read(item.key)
    if entry is None:
        cache.damaged.add(item.key)
        _fill(cache, [item], map, None)
        entry = cache.read(item.key)
    if entry is None:
        msg = f"{item.card.name}/{item.shown_id}: {cache.path(item.key).name} does not hold what was written to it"
        raise DataError(msg)
    return entry


def _sort_out(
    cache: CaseCache, cases: list[RawCase], items: dict[str, CaseItem], refused: list[Refused]
) -> tuple[list[RawCase], dict[str, Head], list[Refused]]:
    """The kept cases, what is known of each without its pixels, and all refused cases (`refused` first) with rows."""
    kept, heads, refused = [], {}, list(refused)
    for case in cases:
        item = items[case.case_id]
        head = cache.head(item.key)
        if head is None:
            msg = f"{item.card.name}/{item.shown_id}: its cache entry went away while the build ran; run again"
            raise DataError(msg)
        if head.refusal is None:
            kept.append(case)
            heads[case.case_id] = head
        else:
            refused.append((case, head.refusal))
    return kept, heads, refused


def _without_twins(
    job: _Job,
    cache: CaseCache,
    kept: list[RawCase],
    refused: list[Refused],
    items: dict[str, CaseItem],
    heads: dict[str, Head],
) -> tuple[list[RawCase], list[Refused]]:
    """Refuse what shows the same as a case of a split that is more held out (`dedup.set_aside`)."""
    by_name = {items[case.case_id].shown_id: case for case in kept}
    looks = {name: heads[case.case_id].hashes for name, case in by_name.items()}

    def load(keys: Iterable[str]) -> Iterator[tuple[str, Any]]:
        wanted = set(keys)
        for name, table in looks.items():
            if wanted.isdisjoint(table.column("key").to_pylist()):
                continue
            rows = _entry(cache, items[by_name[name].case_id]).rows.select(["sample_id", "image"])
            yield from (
                (row["sample_id"], decode(row["image"])) for row in rows.to_pylist() if row["sample_id"] in wanted
            )

    where = {name: dict(_place(job, case)) for name, case in by_name.items()}
    gone = dedup.set_aside(dedup.part_of(hashes.joined(list(looks.values())), where, load))
    twins = [
        (case, quality.duplicate_row(name, items[case.case_id].shown_files[case.images[0]], dedup.said(gone[name])))
        for name, case in by_name.items()
        if name in gone
    ]
    return [case for name, case in by_name.items() if name not in gone], [*refused, *twins]


def _place(job: _Job, case: RawCase) -> dict[str, str]:
    """Group and split of a case."""
    splits = job.params["splits"]
    domain = job.card.domain
    hint = "test" if job.card.evaluation_only else case.split  # all of an external set is a test set
    split = split_of(domain, case.group, str(splits["key"]), float(splits["val"]), float(splits["test"]), hint)
    return {"group_id": pseudonym(domain, case.group, job.key), "split": split}


def _write_shards(
    job: _Job,
    cache: CaseCache,
    kept: list[RawCase],
    items: dict[str, CaseItem],
    heads: dict[str, Head],
    out: Path,
    memory: shards.ShardMemory,
) -> tuple[pa.Table, dict[str, dict[str, Any]]]:
    """Write the shards one at a time, those alone that `memory` does not know; return manifest and {file: record}.

    A record is {"sha256", "rows"}.
    """
    total = sum(heads[case.case_id].body_bytes for case in kept)
    count = shards.shard_count(total, int(job.params["shards"]["target_bytes"]))
    members: dict[int, list[RawCase]] = {}
    for case in kept:
        members.setdefault(shards.shard_of(job.card.name, items[case.case_id].shown_id, count), []).append(case)
    parts, written = [], {}
    for index in sorted(members):
        name = shards.shard_name(index)
        made_of = [[items[case.case_id].key, *_place(job, case).values()] for case in members[index]]
        sha256 = memory.recall(name, made_of)
        if sha256 is None:
            table = pa.concat_tables(_placed(job, cache, members[index], items)).sort_by("sample_id").combine_chunks()
            table.validate(full=True)
            sha256 = shards.write_if_changed(out / name, shards.parquet_bytes(table))
            memory.remember(name, made_of, sha256)
            part = table.drop_columns(["image"])
        else:
            part = shards.without_pixels(out / name)
        written[name] = {"sha256": sha256, "rows": part.num_rows}
        part = part.append_column(schema.MANIFEST_SCHEMA.field("shard"), pa.array([name] * part.num_rows, pa.string()))
        part = part.append_column(schema.MANIFEST_SCHEMA.field("row"), pa.array(range(part.num_rows), pa.int64()))
        parts.append(part)
    # where every case was refused the version is empty, and its quarantine says why
    manifest = pa.concat_tables([schema.MANIFEST_SCHEMA.empty_table(), *parts])
    manifest = manifest.sort_by("sample_id").combine_chunks().cast(schema.MANIFEST_SCHEMA)
    shards.write_if_changed(out / schema.MANIFEST_FILE, shards.parquet_bytes(manifest))
    return manifest, written


def _placed(job: _Job, cache: CaseCache, cases: list[RawCase], items: dict[str, CaseItem]) -> Iterator[pa.Table]:
    for case in cases:
        table = _entry(cache, items[case.case_id]).rows
        for name, value in _place(job, case).items():
            column = pa.array([value] * table.num_rows, pa.string())
            table = table.set_column(table.schema.get_field_index(name), schema.SHARD_SCHEMA.field(name), column)
        yield table


def _write_tables(
    job: _Job,
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
            **_place(job, case),
            **heads[case.case_id].columns,
        }
        for case in kept
    ]
    rows.sort(key=lambda row: str(row["case_id"]))
    write_bytes(out / schema.CASES_FILE, shards.parquet_bytes(shards.table_of(rows, schema.CASES_SCHEMA)))
    out_rows = [row for _, row in refused]
    out_rows += [quality.unclaimed_row(_shown_file(job, file)) for file in account.unclaimed]
    out_rows = sorted(({"dataset": job.card.name, **row} for row in out_rows), key=lambda row: row["case_id"])
    table = shards.table_of(out_rows, schema.QUARANTINE_SCHEMA)
    write_bytes(out / schema.QUARANTINE_FILE, shards.parquet_bytes(table))
    return table


def _report(
    job: _Job,
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
