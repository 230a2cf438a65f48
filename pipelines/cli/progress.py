"""Progress of a run on standard error: bars for people, plain lines where nobody watches a terminal."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from pipelines import events
from pipelines.cli.output import logs

PHASES = {
    "sources": "finding and hashing raw files",
    "start": "starting Prefect and Ray",
    "ingest": "ingesting and harmonizing",
    "version": "tagging the data version",
    "train": "training",
    "evaluate": "evaluating",
    "release": "registering, gate, report",
}
_LINE_EVERY_S = 10.0


@contextlib.contextmanager
def following() -> Iterator[None]:
    """Show the events of the block."""
    console = logs()
    follower = _Bars(console) if console.is_terminal else _Lines(console)
    with follower.shown(), events.listening(follower.handle):
        yield


def _progress_text(event: dict[str, Any]) -> str:
    parts = []
    if event.get("loss") is not None:
        parts.append(f"loss {event['loss']:.3f}")
    if event.get("samples_per_s") is not None:
        parts.append(f"{event['samples_per_s']:.1f} samples/s")
    if event.get("eta_s") is not None:
        parts.append(f"{_clock(event['eta_s'])} left")
    return ", ".join(parts)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"


def _counts(event: dict[str, Any]) -> tuple[int | None, int | None]:
    done = event.get("step", event.get("done"))
    total = event.get("steps", event.get("total"))
    return (int(done) if done is not None else None, int(total) if total else None)


class _Bars:
    """One bar a phase, one a running stage."""

    def __init__(self, console: Any) -> None:
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        with self._bars:
            yield

    def _task(self, key: str, title: str) -> TaskID:
        if key not in self._tasks:
            self._tasks[key] = self._bars.add_task(title, total=None, note="")
        return self._tasks[key]

    def handle(self, event: dict[str, Any]) -> None:
        kind = event["kind"]
        if kind == "phase":
            name = event["name"]
            task = self._task(f"phase {name}", f"[bold]{PHASES.get(name, name)}")
            if event["state"] == "end":
                self._bars.update(task, total=1, completed=1)
        elif kind == "stage":
            name = event["name"].removeprefix("ingest@")
            if name in PHASES:
                return  # its phase has a bar already
            task = self._task(name, f"  {name}")
            if event["state"] == "end":
                self._bars.update(task, visible=False)
        elif kind == "progress":
            name = event.get("dataset") or f"phase {event['stage']}"
            done, total = _counts(event)
            task = self._task(name, f"  {event.get('dataset') or event['stage']}")
            note = _progress_text(event)
            self._bars.update(task, total=total, completed=done, note=note)
        elif message := _message(event):
            self._bars.console.print(message, soft_wrap=True)


class _Lines:
    """One line a phase, and one each few seconds within it."""

    def __init__(self, console: Any) -> None:
        self._console = console
        self._last = 0.0
        self._begun: dict[str, float] = {}

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        yield

    def handle(self, event: dict[str, Any]) -> None:
        kind, now = event["kind"], time.monotonic()
        if kind == "phase":
            name = event["name"]
            if event["state"] == "begin":
                self._begun[name] = now
                self._console.print(f"{PHASES.get(name, name)} …")
            else:
                self._console.print(f"{PHASES.get(name, name)}: {now - self._begun.get(name, now):.1f} s")
        elif kind == "progress" and now - self._last >= _LINE_EVERY_S:
            self._last = now
            done, total = _counts(event)
            what = event.get("dataset") or event["stage"]
            self._console.print(f"  {what}: {done or 0}/{total or '?'} {_progress_text(event)}".rstrip())
        elif message := _message(event):
            self._console.print(message, soft_wrap=True)


def _message(event: dict[str, Any]) -> str:
    if event["kind"] == "missing":
        return f"  {event['dataset']}: {event['reason']}"
    if event["kind"] == "left_out":
        return f"  {event['dataset']} is left out: {event['reason']}"
    if event["kind"] == "version" and event["created"]:
        return f"  data version {event['tag']}"
    if event["kind"] == "reaped":
        return f"  ended what a killed run left: {', '.join(event['processes'])}"
    return ""
