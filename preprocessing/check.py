"""Try a card on a folder without writing anything: what matched, what did not, and the first problems."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from infra.storage import digest_of, sha256_file
from preprocessing.cards import DatasetCard, RawCase, card_for, cases_of
from preprocessing.harmonize.case import CaseItem, CaseResult, process
from preprocessing.many import digest_of_shared, shares_files
from preprocessing.pairing import files_below
from preprocessing.quality import account, unclaimed_row

MapResults = Callable[[Callable[[CaseItem], CaseResult], list[CaseItem]], Iterable[CaseResult]]


def check(
    card: DatasetCard,
    root: Path,
    *,
    orientation: str = "LPS",
    limit: int = 0,
    problems: int = 20,
    map_cases: MapResults = map,
) -> dict[str, Any]:
    """Read the first `limit` cases (0: all) as the build would; names are shown as they are, nothing is kept.

    Returns {"dataset", "ok", "cases_found", "cases_read", "cases_kept", "samples", "objects": {concept: count},
    "files": counts, "not_data": {why: count}, "unmatched": first file names, "reasons": {reason: count},
    "problems": first quarantine rows}. `ok` is false where a case that was read is refused, a file is
    unmatched, or nothing was kept. Raises DataError where the folder is missing.
    """
    files = files_below(root)
    cases = list(cases_of(card)(root))
    tried = cases[:limit] if limit else cases
    items = {case.case_id: _item(card, case, root, orientation) for case in tried}
    results = {result.case_id: result for result in map_cases(process, list(items.values()))}
    kept = [case for case in tried if results[case.case_id].refusal is None]
    refusals = [refusal for case in tried if (refusal := results[case.case_id].refusal)]
    untold = [case for case in cases if case.case_id not in {case.case_id for case in kept}]
    where = account(card, files, kept, untold)
    objects: Counter[str] = Counter()
    for case in kept:
        objects.update(item["concept"] for row in results[case.case_id].rows for item in row["objects"])
    rows = [*refusals, *(unclaimed_row(file) for file in where.unclaimed)]
    return {
        "dataset": card.name,
        "ok": not rows and bool(kept),
        "cases_found": len(cases),
        "cases_read": len(tried),
        "cases_kept": len(kept),
        "samples": sum(len(results[case.case_id].rows) for case in kept),
        "objects": {concept: objects[concept] for concept in card.concepts},
        "files": where.counts(),
        "not_data": dict(sorted(Counter(where.not_data.values()).items())),
        "unmatched": list(where.unclaimed[:problems]),
        "reasons": dict(sorted(Counter(row["reason"] for row in rows).items())),
        "problems": rows[:problems],
    }


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
