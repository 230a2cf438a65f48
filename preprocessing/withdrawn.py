"""Tombstones: cases that must stay out of every later build.

`withdrawn.jsonl` in a workspace holds one JSON object a line, only ever appended to. It names cases and groups as
they are written in manifests (pseudonyms where the dataset is not public), so that it gives nobody away.

What a withdrawn case shows stays out too, under whatever name it comes again: a tombstone keeps the SHA-256 of each
of its pictures, never pixels, and copies that were known when it was withdrawn have tombstones of their own
(`preprocessing.twins`). A recipe lists all of it as texts: an identifier, `twin:` and an identifier, or `pixels:`
and a SHA-256.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from infra.errors import DataError
from infra.storage import read_lines, write_text

TOMBSTONES_FILE = "withdrawn.jsonl"
REASON = "withdrawn"  # of the row in quarantine
_TWIN, _PIXELS = "twin:", "pixels:"  # no identifier has a colon


@dataclass(frozen=True)
class Tombstone:
    """One case, or one group with all its cases, of one dataset. `at` is UTC, ISO 8601.

    `twin_of` is what was withdrawn, where this case or group only shows the same. `pixels_sha256`: of the
    pictures (harmonized pixels, as in `hashes.parquet`) that must not come back.
    """

    dataset: str
    identifier: str  # `case_id` or `group_id` of a manifest row
    reason: str
    actor: str
    at: str
    twin_of: str = ""
    pixels_sha256: tuple[str, ...] = ()


def read_tombstones(path: Path) -> list[Tombstone]:
    """All tombstones in the order in which they came; DataError that names the line which cannot be read."""
    if not path.is_file():
        return []
    found = []
    for number, line in enumerate(read_lines(path), start=1):
        try:
            one = Tombstone(**json.loads(line))
            found.append(replace(one, pixels_sha256=tuple(one.pixels_sha256)))
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
        said = [{name: value for name, value in asdict(one).items() if value != ()} for one in [*known, *added]]
        said = [{name: value for name, value in one.items() if name != "twin_of" or value} for one in said]
        lines = [json.dumps(one, sort_keys=True, ensure_ascii=False) for one in said]
        write_text(path, "".join(f"{line}\n" for line in lines))
    return added


def identifiers_of(tombstones: Iterable[Tombstone], dataset: str) -> list[str]:
    """What must stay out of a dataset, as a recipe lists it, sorted: see the module's text."""
    found: set[str] = set()
    for one in tombstones:
        if one.dataset == dataset:
            found.add((_TWIN if one.twin_of else "") + one.identifier)
            found.update(_PIXELS + sha256 for sha256 in one.pixels_sha256)
    return sorted(found)


def why_withdrawn(withdrawn: Collection[str], names: Iterable[str]) -> str:
    """What a tombstone says about a case or group of one of these names; empty where none names it."""
    for name in names:
        if name in withdrawn:
            return f"a tombstone in {TOMBSTONES_FILE}"
        if _TWIN + name in withdrawn:
            return f"a tombstone in {TOMBSTONES_FILE}: it shows what a withdrawn case shows"
    return ""


def shows_withdrawn(withdrawn: Collection[str], hashes: pa.Table) -> bool:
    """Whether a case, by its rows of `HASHES_SCHEMA`, shows a picture that was withdrawn."""
    shown = hashes.select(["pixels_sha256", "code"]).to_pylist()
    return any(row["code"] and _PIXELS + str(row["pixels_sha256"]) in withdrawn for row in shown)


def withdrawn_in(quarantine: Path) -> list[str]:
    """The cases that a version's quarantine table holds because of a tombstone, sorted."""
    table = pq.read_table(quarantine, columns=["case_id"], filters=[("reason", "=", REASON)])
    return sorted(table.column("case_id").to_pylist())


def withdrawn_row(shown_case: str, shown_file: str, found: str) -> dict[str, str]:
    """The quarantine row of a withdrawn case; `found` says by what."""
    return {
        "case_id": shown_case,
        "file": shown_file,
        "reason": REASON,
        "expected": "a case that may be used",
        "found": found,
    }
