"""Which flow runs are at work in a workspace: a small file a run, with the process and its last sign of life.

Prefect's server knows that a run began; whether its process still lives is only known here. No Prefect is imported.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from infra.processes import find, identify
from infra.storage import write_json

FOLDER = "flow-runs"
BEAT_S = 10.0
SILENCE_S = 60.0
"""A run on another machine, whose process cannot be asked, is dead after so long without a sign."""


def _file(state: Path, flow_run_id: str) -> Path:
    return state / FOLDER / f"{flow_run_id}.json"


@contextlib.contextmanager
def at_work(state: Path, flow_run_id: str, flow: str) -> Iterator[None]:
    """While the block runs, this process says every 10 s that it works on the flow run."""
    record = {"flow_run_id": flow_run_id, "flow": flow, "host": socket.gethostname(), **identify(psutil.Process())}
    stop = threading.Event()
    path = _file(state, flow_run_id)

    def beat() -> None:
        while not stop.wait(BEAT_S):
            with contextlib.suppress(OSError):  # a full disk is the run's to tell
                write_json(path, {**record, "beat": time.time()})

    write_json(path, {**record, "beat": time.time()})
    thread = threading.Thread(target=beat, name="flow-run-heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        path.unlink(missing_ok=True)


def record_of(state: Path, flow_run_id: str) -> dict[str, Any] | None:
    """The record of a flow run; None where there is none: it has not begun here, or it ended by itself."""
    try:
        value: dict[str, Any] = json.loads(_file(state, flow_run_id).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return value


def forget(state: Path, flow_run_id: str) -> None:
    """Remove the record of a dead run."""
    _file(state, flow_run_id).unlink(missing_ok=True)


def why_dead(record: dict[str, Any], now: float | None = None) -> str:
    """Why the run of a record is dead; "" where it lives."""
    if record["host"] == socket.gethostname():
        return "" if find(record) else f"its process {record['pid']} has ended without a word: it was killed"
    silent_s = (time.time() if now is None else now) - float(record["beat"])
    return f"no sign of life from {record['host']} for {silent_s:.0f} s" if silent_s > SILENCE_S else ""
