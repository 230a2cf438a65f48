"""`purged.jsonl`: dataset versions whose old shards were deleted for good, and why; in the workspace's git.

A line: {"at", "actor", "reason", "cases", "dataset", "data_version", "objects": [{"file", "md5"}]}.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from infra.errors import DataError
from infra.storage import write_text
from pipelines.workspace import Workspace

PURGED_FILE = "purged.jsonl"
Purge = dict[str, Any]


def path_of(place: Workspace) -> Path:
    """Where a workspace keeps what was purged."""
    return place.root / PURGED_FILE


def read(place: Workspace) -> list[Purge]:
    """All purges, oldest first; DataError that names the line which cannot be read."""
    path = path_of(place)
    found: list[Purge] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines() if path.is_file() else [], start=1):
        try:
            one = json.loads(line)
            found.append({**one, "dataset": one["dataset"], "data_version": one["data_version"]})
        except (ValueError, TypeError, KeyError) as error:
            msg = f"{path}: line {number}: expected a purge, found {line[:80]!r}; restore the file from git"
            raise DataError(msg) from error
    return found


def add(place: Workspace, new: Sequence[Purge]) -> None:
    """Append purges, in one rename."""
    lines = [json.dumps(one, sort_keys=True, ensure_ascii=False) for one in [*read(place), *new]]
    write_text(path_of(place), "".join(f"{line}\n" for line in lines))


def why(place: Workspace, data_version: str, dataset: str) -> str:
    """What to tell whoever asks for a purged dataset version; empty where it was not purged."""
    for one in reversed(read(place)):
        if (one["data_version"], one["dataset"]) == (data_version, dataset):
            cases = ", ".join(one["cases"][:5]) + (" …" if len(one["cases"]) > 5 else "")
            return (
                f"purged on {one['at'][:10]} by {one['actor']}, since it held {cases} ({one['reason']}): "
                f"{dataset} of {data_version} cannot be rebuilt"
            )
    return ""
