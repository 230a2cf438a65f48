"""The cases of a dataset: found, checked against the scan, processed where the cache does not know them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from infra.errors import DataError
from infra.storage import digest_of
from preprocessing import hashes
from preprocessing.cards import DatasetCard, RawCase, card_for, cases_of
from preprocessing.case_cache import CaseCache, Entry, pack
from preprocessing.harmonize.case import CaseItem, process
from preprocessing.pairing import files_below
from preprocessing.steps.job import Job, shown_file, shown_name

MapCases = Callable[[Callable[[CaseItem], tuple[str, bytes, str]], list[CaseItem]], Iterable[tuple[str, bytes, str]]]
Progress = Callable[[int, int], None]


def run_case(item: CaseItem) -> tuple[str, bytes, str]:
    """Process one case, wherever: (key, packed entry, name of a file that changed since the scan or "")."""
    result = process(item)
    if result.changed:
        return result.key, b"", result.changed
    rows = [{**row, **_identity(item)} for row in result.rows]
    found = hashes.rows_of(rows, item.card.name, item.shown_id) if rows else []
    return result.key, pack(rows, result.columns, result.refusal, found), ""


def checked_cases(job: Job, root: Path, inventory: list[dict[str, Any]]) -> list[RawCase]:
    """The cases below `root`, all of whose files are in the inventory, and nothing of it is gone."""
    card = job.card
    on_disk = set(files_below(root))
    listed = {str(line["file"]) for line in inventory}
    gone = sorted(listed - on_disk)
    if gone:
        msg = f"{card.name}: {len(gone)} scanned file(s) are gone, first {shown_file(job, gone[0])}. {_again(card)}"
        raise DataError(msg)
    cases = list(cases_of(card)(root))
    new = sorted({file for case in cases for file in case.files} - listed)
    if new:
        msg = f"{card.name}: {len(new)} file(s) came after the scan, first {shown_file(job, new[0])}. {_again(card)}"
        raise DataError(msg)
    if not cases:
        patterns = " or ".join(layout.image for layout in card.layouts)
        msg = f"{card.name}: no image or label among {len(on_disk)} files; expected images named {patterns}"
        raise DataError(msg)
    return cases


def item_of(job: Job, case: RawCase, root: Path, sha256: dict[str, str]) -> CaseItem:
    """What a worker needs to know of a case; its key is the digest of all that decides what the case gives."""
    digests = {file: sha256[file] for file in case.files}
    harmonize = job.params["harmonize"]
    shown_id, shown = shown_name(job, case.case_id), {file: shown_file(job, file) for file in case.files}
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


def fill(cache: CaseCache, items: list[CaseItem], map_cases: MapCases, progress: Progress | None) -> int:
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


def entry_of(cache: CaseCache, item: CaseItem) -> Entry:
    """What a case gave, its rows too; where its head was sound and its body is not, the case is made again."""
    entry = cache.read(item.key)
    if entry is None:
        cache.damaged.add(item.key)
        fill(cache, [item], map, None)
        entry = cache.read(item.key)
    if entry is None:
        msg = f"{item.card.name}/{item.shown_id}: {cache.path(item.key).name} does not hold what was written to it"
        raise DataError(msg)
    return entry


def _again(card: DatasetCard) -> str:
    return f"Scan again: `segfoundry data fetch {card.name}`"


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
