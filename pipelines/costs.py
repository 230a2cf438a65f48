"""What stages took on this machine, kept beyond a run: what the next one will cost.

`timings.json` is about the latest run alone; `costs.json` keeps the latest duration of each stage, with the size of
what it worked on.
"""

from __future__ import annotations

import json
import statistics
import threading
from typing import Any

from infra.dvc import INGEST_PREFIX
from infra.storage import read_json, read_lines, write_json
from pipelines.workspace import Workspace

_FILE = "costs.json"
_lock = threading.Lock()  # stages of one run end in several threads


def _known(place: Workspace) -> dict[str, dict[str, Any]]:
    path = place.state / _FILE
    value: dict[str, dict[str, Any]] = read_json(path) if path.is_file() else {}
    return value


def source_bytes(place: Workspace, dataset: str) -> int:
    """Bytes of a dataset's raw files, by its inventory; 0 where there is none."""
    path = place.inventory(dataset)
    lines = read_lines(path) if path.is_file() else []
    return sum(int(json.loads(line).get("bytes", 0)) for line in lines if line)


def note(place: Workspace, stage: str, seconds: float) -> None:
    """Remember what a stage took."""
    size = source_bytes(place, stage.removeprefix(INGEST_PREFIX)) if stage.startswith(INGEST_PREFIX) else 0
    with _lock:
        write_json(place.state / _FILE, _known(place) | {stage: {"seconds": round(seconds, 3), "bytes": size}})


def expected_s(place: Workspace, stage: str, size: int = 0) -> float | None:
    """Seconds that a stage will take: as it took before, an ingest by bytes of its raw files; None where unknown.

    A dataset that was never ingested is estimated by the median of seconds a byte over those that were.
    """
    known = _known(place)
    if not stage.startswith(INGEST_PREFIX):
        return float(known[stage]["seconds"]) if stage in known else None
    rates: dict[str, float] = {
        name: one["seconds"] / one["bytes"]
        for name, one in known.items()
        if name.startswith(INGEST_PREFIX) and one["bytes"]
    }
    if stage in rates and size:
        return rates[stage] * size
    if stage in known:
        return float(known[stage]["seconds"])
    return statistics.median(rates.values()) * size if rates and size else None
