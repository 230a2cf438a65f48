"""Which cases a version keeps, and why the others are not in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from infra.errors import DataError
from preprocessing import dedup, hashes, quality
from preprocessing.cards import RawCase
from preprocessing.case_cache import CaseCache, Head
from preprocessing.harmonize.item import CaseItem
from preprocessing.harmonize.payload import decode
from preprocessing.steps.cases import entry_of
from preprocessing.steps.job import Job, Refused, place
from preprocessing.withdrawn import REASON as WITHDRAWN
from preprocessing.withdrawn import shows_withdrawn, why_withdrawn, withdrawn_row


def without_withdrawn(
    job: Job, cases: list[RawCase], items: dict[str, CaseItem], withdrawn: set[str]
) -> tuple[list[RawCase], list[Refused]]:
    """The cases that may be used, and the withdrawn ones each with its quarantine row."""
    live, refused = [], []
    for case in cases:
        item = items[case.case_id]
        if why := why_withdrawn(withdrawn, (item.shown_id, place(job, case)["group_id"])):
            refused.append((case, withdrawn_row(item.shown_id, item.shown_files[case.files[0]], why)))
        else:
            live.append(case)
    return live, refused


def without_copies(
    job: Job,
    kept: list[RawCase],
    refused: list[Refused],
    items: dict[str, CaseItem],
    heads: dict[str, Head],
    withdrawn: set[str],
) -> tuple[list[RawCase], list[Refused]]:
    """Refuse what shows a withdrawn picture under another name.

    With all of its group, which then is the withdrawn patient under another name; of the withdrawn case's own
    group, of which more could have been withdrawn and was not, only what shows the picture.
    """
    if not withdrawn:
        return kept, refused
    own = {place(job, case)["group_id"] for case, row in refused if row["reason"] == WITHDRAWN}
    copies = {case.case_id for case in kept if shows_withdrawn(withdrawn, heads[case.case_id].hashes)}
    groups = {place(job, case)["group_id"] for case in kept if case.case_id in copies} - own
    found = "a picture of a withdrawn case, by its SHA-256, in this case or its group"
    gone = [case for case in kept if case.case_id in copies or place(job, case)["group_id"] in groups]
    rows = [
        (case, withdrawn_row(items[case.case_id].shown_id, items[case.case_id].shown_files[case.files[0]], found))
        for case in gone
    ]
    names = {case.case_id for case in gone}
    return [case for case in kept if case.case_id not in names], [*refused, *rows]


def sort_out(
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


def without_twins(
    job: Job,
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
            rows = entry_of(cache, items[by_name[name].case_id]).rows.select(["sample_id", "image"])
            yield from (
                (row["sample_id"], decode(row["image"])) for row in rows.to_pylist() if row["sample_id"] in wanted
            )

    where = {name: dict(place(job, case)) for name, case in by_name.items()}
    gone = dedup.set_aside(dedup.part_of(hashes.joined(list(looks.values())), where, load))
    twins = [
        (case, quality.duplicate_row(name, items[case.case_id].shown_files[case.images[0]], dedup.said(gone[name])))
        for name, case in by_name.items()
        if name in gone
    ]
    return [case for name, case in by_name.items() if name not in gone], [*refused, *twins]
