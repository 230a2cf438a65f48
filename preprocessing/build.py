"""Build one dataset version: all cases through `process`, then shards, manifest, tables, card, `dataset.json`.

The output is a function of the inventory, the recipe, the parameters and the pseudonym key: no times,
no paths. `dataset.json` is removed first and written last.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from infra.storage import TEMPORARY_SUFFIX, remove_leftovers, write_json, write_text
from preprocessing import fingerprint, hashes, ontology, quality, schema, shards
from preprocessing.card_page import card_page
from preprocessing.cards import DatasetCard
from preprocessing.case_cache import CaseCache
from preprocessing.recipe import recipe_file, recipe_sha256
from preprocessing.steps.cases import MapCases, Progress, checked_cases, fill, item_of, run_case
from preprocessing.steps.job import Job
from preprocessing.steps.refused import sort_out, without_copies, without_twins, without_withdrawn
from preprocessing.steps.written import report_of, write_shards, write_tables
from preprocessing.withdrawn import REASON as WITHDRAWN

__all__ = ["build_dataset", "recipe_file", "run_case"]


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
    `progress(done, total)` counts cases. `withdrawn` is what `withdrawn.identifiers_of` gives: cases and groups, named
    as manifests name them, are not read and go to quarantine, and so does what shows their pictures. Cases that
    `case_cache` remembers are not read again, and a shard none of whose cases changed is left alone: `reused_cases`
    and `reused_shards` in the result count them. Raises DataError where the folder is not what was scanned or holds
    no case of this card.
    """
    recipe = recipe_file(card)
    job = Job(card, params, pseudonym_key, recipe_sha256(recipe, params["harmonize"]))
    cases = checked_cases(job, root, inventory)
    sha256 = {str(line["file"]): str(line["sha256"]) for line in inventory}
    items = {case.case_id: item_of(job, case, root, sha256) for case in cases}
    out.mkdir(parents=True, exist_ok=True)
    (out / schema.DATASET_FILE).unlink(missing_ok=True)
    remove_leftovers(out)
    with _cache(card, case_cache, out) as cache:
        live, refused = without_withdrawn(job, cases, items, set(withdrawn))
        reused = fill(cache, [items[case.case_id] for case in live], map_cases, progress)
        kept, heads, refused = sort_out(cache, live, items, refused)
        kept, refused = without_copies(job, kept, refused, items, heads, set(withdrawn))
        kept, refused = without_twins(job, cache, kept, refused, items, heads)
        account = quality.account(card, [str(line["file"]) for line in inventory], kept, [case for case, _ in refused])
        memory = shards.ShardMemory(case_cache / card.name / "shards.json" if case_cache else None, out)
        manifest, written = write_shards(job, cache, kept, items, heads, out, memory)
        memory.save()
        tables = write_tables(job, kept, heads, items, refused, account, out)
        found = hashes.joined([heads[case.case_id].hashes for case in kept])
        shards.write_if_changed(out / schema.HASHES_FILE, shards.parquet_bytes(found))
        cases_table = pq.read_table(out / schema.CASES_FILE)
        write_json(out / schema.FINGERPRINT_FILE, fingerprint.fingerprint(manifest, cases_table, found))
        # what a withdrawn case once gave is not remembered either, nor what a copy of it gives
        copies = {case.case_id for case, row in refused if row["reason"] == WITHDRAWN}
        cache.keep_only({items[case.case_id].key for case in live if case.case_id not in copies})
    for path in out.glob("shard-*.parquet"):
        if path.name not in written:
            path.unlink()
    report = report_of(job, source_kind, account, manifest, written, len(cases), tables.num_rows)
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
