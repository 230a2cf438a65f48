"""Run a flow in this process: for `segfoundry demo` and `segfoundry flow run`."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from infra.compute import ray_session
from pipelines import events, orchestration
from pipelines.flows import parts
from pipelines.workspace import Workspace

Document = dict[str, Any]


def flows() -> dict[str, Any]:
    """Name -> flow."""
    from pipelines.flows import audit, retrain

    known = (retrain.ingest, retrain.train, retrain.evaluate, retrain.promote, retrain.retrain, audit.audit)
    return {str(one.name): one for one in known}


def in_this_process(place: Workspace, name: str, *, with_ray: bool = False) -> Document:
    """Run the flow `name`; with the run lock where the caller holds it, else the flow takes it.

    Prefect's server and, with `with_ray`, Ray's head start at the same time: both mostly wait for processes of
    their own.
    """
    begun = time.monotonic()
    events.emit("phase", name="start", state="begin")
    with ThreadPoolExecutor(1) as pool, parts.session:
        server = pool.submit(orchestration.start, place.state, str(place.root))
        took = 0.0
        if with_ray:
            parts.session.enter_context(ray_session(place.state))
            took = time.monotonic() - begun
            place.note_seconds("phase start Ray", took)
        server.result()
        place.note_seconds("phase start Prefect", time.monotonic() - begun - took)  # the rest, which Ray did not hide
        events.emit("phase", name="start", state="end")
        outcome: Document = flows()[name](str(place.root))
    return outcome
