"""Tombstones: cases that must stay out of every later build.

`withdrawn.jsonl` in a workspace holds one JSON object a line, only ever appended to. It names cases and groups as
they are written in manifests (pseudonyms where the dataset is not public), so that it gives nobody away.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from infra.errors import DataError
from infra.storage import write_text

TOMBSTONES_FILE = "withdrawn.jsonl"
REASON = "withdrawn"  # of the row in quarantine


@dataclass(frozen=True)
class Tombstone:
    """One case, or one group with all its cases, of one dataset. `at` is UTC, ISO 8601."""

    dataset: str
    identifier: str  # `case_id` or `group_id` of a manifest row
    reason: str
    actor: str
    at: str


def read_tombstones(path: Path) -> list[Tombstone]:
    """All tombstones in the order in which they came; DataError that names the line which cannot be read."""
    if not path.is_file():
        return []
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            found.append(Tombstone(**json.loads(line)))
        except (ValueError, TypeError) as error:
            msg = (
                f"{path.name}: line {number}: expected a tombstone (dataset, identifier, reason, actor, at), "
                f"found {line[:80]!r}. Restore the file from git: cases in it must not come back"
            )
            raise DataError(msg) from error
    return found


def add_tombstones(path: Path, new: Iterable[Tombstone]) -> list[Tombstone]:
    """Append what is not there yet, in one rename; return what was added."""
    known = read_tombstones(path)
    named = {(one.dataset, one.identifier) for one in known}
    added = [one for one in new if (one.dataset, one.identifier) not in named]
    if added:
        lines = [json.dumps(asdict(one), sort_keys=True, ensure_ascii=False) for one in [*known, *added]]
        write_text(path, "".join(f"{line}\n" for line in lines))
    return added


def identifiers_of(tombstones: Iterable[Tombstone], dataset: str) -> list[str]:
    """Cases and groups of a dataset that must stay out, sorted."""
    return sorted({one.identifier for one in tombstones if one.dataset == dataset})


def withdrawn_row(shown_case: str, shown_file: str) -> dict[str, str]:
    """The quarantine row of a withdrawn case."""
    return {
        "case_id": shown_case,
        "file": shown_file,
        "reason": REASON,
        "expected": "a case that may be used",
        "found": f"a tombstone in {TOMBSTONES_FILE}",
    }
