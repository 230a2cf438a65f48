"""Promotions in processes of their own, forked from one that has MLflow imported: races, and kills in the middle."""

from __future__ import annotations

import os
import signal
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import mlflow  # noqa: F401 - imported once, by the process that the others are forked from

from infra.errors import CheckFailed
from registry import intents as module
from registry.gate import GateReport
from registry.promote import promote
from registry.store import RegistryStore

CONTEXT = get_context("forkserver")
CONTEXT.set_forkserver_preload([__name__])
CRASHES = ("before the aliases", "between two aliases", "before the done row")


def racer(url: str, artifacts: Path, start: Any, pipe: Connection) -> None:
    """Until it is sent None: promote what it is sent when all are at the start; answer with what came of it."""
    store = RegistryStore(url, artifacts)
    store.versions("nothing")
    while (race := pipe.recv()) is not None:
        name, version, gate = race
        start.wait(timeout=60)
        try:
            promote(store, name, version, gate=GateReport.from_dict(gate), actor=f"p{os.getpid()}", reason="race")
            pipe.send("promoted")
        except CheckFailed as refused:
            pipe.send(f"refused: {refused}")


def crash(url: str, artifacts: Path, name: str, version: int, gate: dict[str, Any], where: str) -> BaseProcess:
    """The process, ended, of a promotion that kills itself by SIGKILL."""
    process = CONTEXT.Process(target=_crash, args=(url, artifacts, name, version, gate, where))
    process.start()
    process.join(timeout=60)
    return process


def _crash(url: str, artifacts: Path, name: str, version: int, gate: dict[str, Any], where: str) -> None:
    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    store = RegistryStore(url, artifacts)
    if where == CRASHES[0]:
        module.apply = die  # type: ignore[assignment]
    elif where == CRASHES[1]:
        set_alias, calls = store.client.set_registered_model_alias, []

        def second_dies(*given: Any) -> None:
            calls.append(given)
            if len(calls) == 2:
                die()
            set_alias(*given)

        store.client.set_registered_model_alias = second_dies
    else:
        module.close = die  # type: ignore[assignment]
    promote(store, name, version, gate=GateReport.from_dict(gate), actor="ann", reason="killed")
