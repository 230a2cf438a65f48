"""Try a card on a folder without writing anything: what matched, what did not, and the first problems."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from infra.storage import digest_of, sha256_file
from preprocessing import matches, ontology
from preprocessing.cards import DatasetCard, RawCase, card_for, cases_of
from preprocessing.expressions import compiled
from preprocessing.harmonize.case import CaseItem, CaseResult, process
from preprocessing.many import digest_of_shared, shares_files
from preprocessing.pairing import files_below
from preprocessing.quality import account, unclaimed_row

MapResults = Callable[[Callable[[CaseItem], CaseResult], list[CaseItem]], Iterable[CaseResult]]
See = Callable[[dict[str, Any]], None]


def check(
    card: DatasetCard,
    root: Path,
    *,
    orientation: str = "LPS",
    limit: int = 0,
    problems: int = 20,
    map_cases: MapResults = map,
    written: Mapping[str, str] | None = None,
    see: See | None = None,
) -> dict[str, Any]:
    """Read the first `limit` cases (0: all) as the build would; names are shown as they are, nothing is kept.

    Returns {"dataset", "ok", "cases_found", "cases_read", "cases_kept", "samples", "objects": {concept: count},
    "files": counts, "not_data": {why: count}, "unmatched": first file names, "reasons": {reason: count},
    "problems": first quarantine rows, "expressions", "orphans" (both of `preprocessing.matches`), "groups",
    "official_splits", "notices"}. `ok` is false where a case that was read is refused, a file is unmatched, or
    nothing was kept. `written` maps compiled expressions to what the author wrote; `see` is shown one row (with
    image and objects) of each kept case. Raises DataError where the folder is missing.
    """
    files = files_below(root)
    cases = list(cases_of(card)(root))
    tried = cases[:limit] if limit else cases
    by_id = {case.case_id: case for case in tried}
    kept: list[RawCase] = []
    refusals: list[dict[str, str]] = []
    objects: Counter[str] = Counter()
    samples = 0
    for result in map_cases(process, [_item(card, case, root, orientation) for case in tried]):
        if result.refusal is not None:
            refusals.append(result.refusal)
            continue
        kept.append(by_id[result.case_id])
        samples += len(result.rows)
        for row in result.rows:
            objects.update(item["concept"] for item in row["objects"])
        if see and result.rows:  # the slice that shows most
            see(max(result.rows, key=lambda row: sum(item["area"] for item in row["objects"])))
    kept_ids = {case.case_id for case in kept}
    where = account(card, files, kept, [case for case in cases if case.case_id not in kept_ids])
    rows = [*refusals, *(unclaimed_row(file) for file in where.unclaimed)]
    return {
        "dataset": card.name,
        "ok": not rows and bool(kept),
        "cases_found": len(cases),
        "cases_read": len(tried),
        "cases_kept": len(kept),
        "samples": samples,
        "objects": {concept: objects[concept] for concept in card.concepts},
        "files": where.counts(),
        "not_data": dict(sorted(Counter(where.not_data.values()).items())),
        "unmatched": list(where.unclaimed[:problems]),
        "reasons": dict(sorted(Counter(row["reason"] for row in rows).items())),
        "problems": rows[:problems],
        "expressions": matches.explain(card, files, written or {}),
        "orphans": matches.orphans(cases),
        "groups": len({case.group for case in cases}),
        "official_splits": dict(sorted(Counter(case.split or "by hash" for case in cases).items())),
        "notices": list(_notices(card, cases, files, objects if len(tried) == len(cases) and kept else None)),
    }


def _notices(card: DatasetCard, cases: list[RawCase], files: list[str], objects: Counter[str] | None) -> Iterable[str]:
    """What is allowed and probably not meant."""
    known = ontology.load()
    for concept in card.concepts:
        if objects is not None and not objects[concept]:
            yield f"{concept!r} was found in no case: is its value, colour or file name right?"
        if concept not in known and not card.synonyms.get(concept):
            yield f"{concept!r} is not in the ontology: its name is the only prompt. Add words for it under `synonyms`"
    if not card.searched:
        yield "`searched` is empty: an image without a mark says nothing, so no absence is learned from this dataset"
    if card.group:
        outside = [case.case_id for case in cases if not compiled(card.group).search(case.case_id)]
        if outside:
            yield f"`group` does not match {len(outside)} case(s), first {outside[0]!r}: each is a group of its own"
    elif cases and len({case.group for case in cases}) == len(cases):
        yield "every case is a group of its own: where a patient has several images, say so with {group} or `group`"
    if strange := matches.unknown_splits(card, files):
        yield f"{{split}} says {', '.join(strange[:5])}: not in `official_split`, so these are split by hash"


def _item(card: DatasetCard, case: RawCase, root: Path, orientation: str) -> CaseItem:
    digest = digest_of_shared if shares_files(case, card) else sha256_file
    digests = {file: digest(root / file) for file in case.files}
    return CaseItem(
        card=card_for(card, case),
        case=case,
        root=str(root),
        sha256=digests,
        orientation=orientation,
        min_object_area_px=1,
        shown_id=case.case_id,
        shown_files={file: file for file in case.files},
        key=digest_of([case.case_id, digests]),
    )
