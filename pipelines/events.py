"""What a run tells whoever shows it: small dictionaries with a `kind`. No listener, no cost.

Prefect stores the parameters of flows and tasks, so a callback cannot be one of them; it is registered
here for the process instead.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

Listener = Callable[[dict[str, Any]], None]

_listeners: list[Listener] = []
_guard = threading.Lock()


def emit(kind: str, **values: Any) -> None:
    """Tell every listener; called from several threads, so one at a time."""
    with _guard:
        for listener in _listeners:
            listener({"kind": kind, **values})


@contextlib.contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Register `listener` for the block."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


@contextlib.contextmanager
def phase(name: str) -> Iterator[None]:
    """Announce the begin and end of a phase."""
    emit("phase", name=name, state="begin")
    try:
        yield
    finally:
        emit("phase", name=name, state="end")
