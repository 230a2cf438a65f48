"""`purged.jsonl`: dataset versions whose old shards were deleted for good, and why; in the workspace's git.

A line: {"at", "actor", "reason", "cases", "dataset", "data_version", "objects": [{"file", "md5"}]}.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from infra.storage import read_json_lines, write_json_lines
from pipelines.workspace import Workspace

PURGED_FILE = "purged.jsonl"
Purge = dict[str, Any]


def path_of(place: Workspace) -> Path:
    """Where a workspace keeps what was purged."""
    return place.root / PURGED_FILE


def read(place: Workspace) -> list[Purge]:
    """All purges, oldest first; DataError that names the line which cannot be read."""
    return read_json_lines(path_of(place), "a purge", ("dataset", "data_version"))


def add(place: Workspace, new: Sequence[Purge]) -> None:
    """Append purges, in one rename."""
    write_json_lines(path_of(place), [*read(place), *new])


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
