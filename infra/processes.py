"""Processes of ours: one run a workspace, and nothing left behind by a killed one.

A process is named by its id and its start time, because ids are used again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from infra.errors import UsageError
from infra.storage import write_json

CHILDREN_FILE = "children.json"
LOCK_FILE = "run.lock.json"
_START_TIME_SLACK_S = 0.05


def identify(process: psutil.Process) -> dict[str, Any]:
    """`{"pid", "started", "name"}` of a process."""
    return {"pid": process.pid, "started": process.create_time(), "name": process.name()}


def find(record: dict[str, Any]) -> psutil.Process | None:
    """The live process of a record; None where it has ended or its id now belongs to another."""
    try:
        process = psutil.Process(int(record["pid"]))
        same = abs(process.create_time() - float(record["started"])) < _START_TIME_SLACK_S
        alive = process.status() != psutil.STATUS_ZOMBIE
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None
    return process if same and alive else None


def end(records: list[dict[str, Any]], patience_s: float = 5.0) -> list[str]:
    """End the recorded processes that still live: politely, then by force. Returns what was ended."""
    alive = [process for record in records if (process := find(record)) is not None]
    names = [f"{_name(process)} ({process.pid})" for process in alive]
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, stubborn = psutil.wait_procs(alive, timeout=patience_s)
    for process in stubborn:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(stubborn, timeout=patience_s)
    return names


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return "ended"


def _read(path: Path) -> Any:
    # A kill can leave no file or, before the first rename, none at all; a torn one cannot be (atomic writes).
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def holds_lock(folder: Path) -> bool:
    """Whether this process holds the run lock of the state folder `folder`."""
    holder = _read(folder / LOCK_FILE) or {}
    return holder.get("pid") == os.getpid() and find(holder) is not None


class RunLock:
    """One writing run a workspace. The lock of a dead process is taken over.

    With `patience_s`, another run is waited for so long; without, it is an error at once.
    """

    def __init__(self, folder: Path, what: str, patience_s: float = 0.0) -> None:
        self._path = folder / LOCK_FILE
        self._what = what
        self._patience_s = patience_s

    def __enter__(self) -> RunLock:
        deadline = time.monotonic() + self._patience_s
        while True:
            try:
                return self._take()
            except UsageError:
                if time.monotonic() >= deadline:
                    raise
            time.sleep(min(1.0, self._patience_s))

    def _take(self) -> RunLock:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with alone_in(self._path.parent):  # two must not both take a dead one's over
            return self._take_over()

    def _take_over(self) -> RunLock:
        record = {**identify(psutil.Process()), "what": self._what}
        for _ in range(3):
            fresh = self._path.with_name(f".{LOCK_FILE}.{os.getpid()}")
            write_json(fresh, record)
            try:
                os.link(fresh, self._path)  # fails where the lock exists: the atomic step
            except FileExistsError:
                holder = _read(self._path)
                if holder and find(holder):
                    msg = (
                        f"another run works in {self._path.parent.parent}: "
                        f"{holder.get('what')}, process {holder['pid']}. "
                        "Wait for it or end it, or give another --workspace."
                    )
                    raise UsageError(msg) from None
                self._path.unlink(missing_ok=True)
            else:
                return self
            finally:
                fresh.unlink(missing_ok=True)
        msg = f"cannot take {self._path}: several runs start at the same moment. Try again."
        raise UsageError(msg)

    def __exit__(self, *_: object) -> None:
        self._path.unlink(missing_ok=True)


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """One process at a time, by a lock on the folder itself: it leaves no file, and ends with its process."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def reap_leftovers(folder: Path) -> list[str]:
    """End what a killed run left running (Ray, the ephemeral Prefect server): only what that run recorded."""
    records = _read(folder / CHILDREN_FILE) or []
    # an earlier run in this very process was not killed: what it started may still be in use, as a Prefect server is
    own = {child.pid for child in psutil.Process().children(recursive=True)}
    ended = end([record for record in records if record["pid"] not in own])
    (folder / CHILDREN_FILE).unlink(missing_ok=True)
    return ended


@contextlib.contextmanager
def recorded_children(folder: Path, interval_s: float = 0.5) -> Iterator[None]:
    """While the block runs, keep a list of this process's children on disk for `reap_leftovers`.

    Children that leave the family (a daemon) stay on the list as long as they live.
    """
    stop = threading.Event()
    path = folder / CHILDREN_FILE
    # what a killed run recorded and nobody has ended yet stays on the list
    known = {(record["pid"], record["started"]): record for record in _read(path) or []}

    def note() -> None:
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                record = identify(child)
                known[(record["pid"], record["started"])] = record
        for key in [key for key, record in known.items() if find(record) is None]:
            del known[key]
        write_json(path, list(known.values()))

    def watch() -> None:
        while not stop.wait(interval_s):
            note()

    note()
    thread = threading.Thread(target=watch, name="recorded-children", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        note()
        if not known:
            path.unlink(missing_ok=True)


def free_port() -> int:
    """A TCP port of the loopback address that is free now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int, process: psutil.Process, timeout_s: float) -> bool:
    """True once something listens on the loopback `port`; False when `process` ended or time is up."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return True
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
            return False
        time.sleep(0.25)
    return False
