"""What shows the same as a case that is withdrawn: known copies of it, from a version's own tables and shards.

A copy that was in quarantine as the case's duplicate would come into training once the case is gone; one that lies
in the same split was kept beside it. `hashes.parquet` has what finds an exact copy that comes later.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from preprocessing import hashes, schema
from preprocessing.dedup import Part, matches, named_in

DUPLICATE = "duplicate"  # the reason in quarantine


def pixels_of(table: pa.Table, cases: Collection[str]) -> list[str]:
    """SHA-256 of the pictures of `cases`, from rows of `HASHES_SCHEMA`, sorted; not of those that show nothing."""
    rows = table.select(["case_id", "pixels_sha256", "code"]).to_pylist()
    return sorted({row["pixels_sha256"] for row in rows if row["case_id"] in cases and row["code"]} - {None})


def set_aside_for(quarantine: pa.Table, cases: Collection[str]) -> list[str]:
    """Cases of a quarantine table that are there as duplicates of one of `cases`, or of its group, sorted."""
    rows = [row for row in quarantine.to_pylist() if row["reason"] == DUPLICATE]
    return sorted({row["case_id"] for row in rows if _case_of(named_in(row["found"])) in cases})


def _case_of(key: str) -> str:
    """The case of a sample or volume: `dataset/case` and what may follow."""
    return key.partition("/")[2].partition("/")[0]


def kept_beside(folder: Path, cases: Collection[str]) -> list[str]:
    """Groups of the version in `folder` that show what one of `cases` shows and are kept, sorted.

    Found as duplicates are (`preprocessing.dedup`); the cases' own groups are not asked.
    """
    rows = _rows(folder)
    return _shown_by(
        Part([row for row in rows if row["case_id"] in cases], lambda keys: hashes.pictures(folder, keys)),
        Part([row for row in rows if row["case_id"] not in cases], lambda keys: hashes.pictures(folder, keys)),
    )


def kept_in(folder: Path, cases: Collection[str], other: Path) -> list[str]:
    """Groups of the version in `other` that show what one of `cases` of the version in `folder` shows, sorted.

    A group of the same name is the same patient and is named too.
    """
    own = [row for row in _rows(folder) if row["case_id"] in cases]
    if not own:
        return []
    groups = {row["group_id"] for row in own}
    beside = _rows(other)
    found = _shown_by(
        Part(own, lambda keys: hashes.pictures(folder, keys)), Part(beside, lambda keys: hashes.pictures(other, keys))
    )
    return sorted({*found, *(groups & {row["group_id"] for row in beside})})


def _rows(folder: Path) -> list[dict[str, Any]]:
    """The hashes of the version in `folder`, each with the group and split of its case."""
    columns = ["case_id", "group_id", "split"]
    manifest = pq.read_table(folder / schema.MANIFEST_FILE, columns=columns).to_pylist()
    where = {row["case_id"]: {"group_id": row["group_id"], "split": row["split"]} for row in manifest}
    return [
        {**row, **where[row["case_id"]]} for row in hashes.of_version(folder).to_pylist() if row["case_id"] in where
    ]


def _shown_by(own: Part, others: Part) -> list[str]:
    return sorted({match.right["group_id"] for match in matches(own, others)})
