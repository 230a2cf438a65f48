"""What shows the same as a case that is withdrawn: known copies of it, from a version's own tables and shards.

A copy that was in quarantine as the case's duplicate would come into training once the case is gone; one that lies
in the same split was kept beside it. `hashes.parquet` has what finds an exact copy that comes later.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pyarrow as pa

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
    manifest = schema.read_manifest(folder).select(["case_id", "group_id", "split"]).to_pylist()
    where = {row["case_id"]: {"group_id": row["group_id"], "split": row["split"]} for row in manifest}
    rows = [
        {**row, **where[row["case_id"]]} for row in hashes.of_version(folder).to_pylist() if row["case_id"] in where
    ]
    sides = [
        Part([row for row in rows if (row["case_id"] in cases) is own], lambda keys: hashes.pictures(folder, keys))
        for own in (True, False)
    ]
    return sorted({match.right["group_id"] for match in matches(*sides)})
