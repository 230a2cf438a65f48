"""`segfoundry flow serve`: deployments with their schedules, the watched place, and the keeper, until it is ended.

One process a workspace. Each run is a child of its own; a kill of this process leaves them alone, and the next one
finds them.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from infra.errors import SegfoundryError, ServiceError, UsageError, causes
from infra.settings import Settings
from infra.storage import sha256_bytes
from pipelines.keeper import Keeper, keep_until
from pipelines.watch import Watcher, watch_until
from pipelines.workspace import Workspace

_LOG = logging.getLogger(__name__)
_LOCK = "serve.lock"
_RESTART_S = 10.0
POLL_S = 5.0


@dataclass(frozen=True)
class Plan:
    """When what runs: cron expressions (empty: never by the clock) in a time zone, and the watched place."""

    retrain_cron: str
    audit_cron: str
    timezone: str
    watch: str
    watch_every_s: float
    watch_settle_s: float

    @classmethod
    def of(cls, settings: Settings) -> Plan:
        """As the environment says."""
        return cls(**{name: getattr(settings, name) for name in cls.__dataclass_fields__})

    def cron(self, flow: str) -> str:
        """When a flow runs by the clock; empty: never."""
        return {"retrain": self.retrain_cron, "audit": self.audit_cron}.get(flow, "")


def serve(place: Workspace, plan: Plan, say: Callable[[str], None]) -> None:
    """Serve until interrupted. `orchestration.prepare` comes before, and a server must be known.

    UsageError where another process serves the workspace, or a cron expression is none; ServiceError where the server
    does not take the deployments at the start; what else goes wrong at the start is raised as it is. A server that is
    gone later is waited for.
    """
    served = threading.Event()
    with _only_one(place.state), _loud(say):
        while True:
            try:
                asyncio.run(_serve(place, plan, say, served))
                return
            except (UsageError, KeyboardInterrupt, SystemExit):
                raise
            except Exception as error:
                if not served.is_set():
                    if isinstance(error, SegfoundryError) or not _of_the_server(error):
                        raise
                    where = os.environ.get("PREFECT_API_URL", "")
                    msg = f"Prefect's server at {where} does not take the flows: {error}"
                    raise ServiceError(msg) from error
                # the server was gone for longer than its client's patience
                _LOG.warning("Prefect's runner ended: %s; it starts again in %d s", error, _RESTART_S)
                time.sleep(_RESTART_S)


def _of_the_server(error: Exception) -> bool:
    """Whether an error came from Prefect, or from a server of it that cannot be reached."""
    from httpx import HTTPError
    from prefect.exceptions import PrefectException

    return any(isinstance(one, HTTPError | PrefectException) for one in causes(error))


def deployment_name(place: Workspace) -> str:
    """The folder's name, and a mark of its path: several workspaces may share a server."""
    return f"{place.root.name}-{sha256_bytes(str(place.root).encode())[:6]}"


async def _serve(place: Workspace, plan: Plan, say: Callable[[str], None], served: threading.Event) -> None:
    from prefect.client.orchestration import get_client
    from prefect.runner import Runner

    # One run at a time in this process; Prefect's own limit and the run lock hold among several.
    runner = Runner(name=deployment_name(place), limit=1, query_seconds=POLL_S, pause_on_shutdown=True)
    deployments = await _deploy(runner, place, plan)
    keeper, stop = Keeper(place, deployments), threading.Event()

    def start(why: str, key: str) -> None:
        with get_client(sync_client=True) as client:
            keeper.start(client, "retrain", why=why, key=key)
        _announce(place, why)
        say(f"retrain is asked for: {why}")

    threads = [threading.Thread(target=keep_until, args=(stop, keeper), name="keeper", daemon=True)]
    if plan.watch:
        watcher = Watcher(place, plan.watch, settle_s=plan.watch_settle_s, start=start)
        threads.append(
            threading.Thread(target=watch_until, args=(stop, watcher, plan.watch_every_s), name="watch", daemon=True)
        )
    for thread in threads:
        thread.start()
    served.set()
    say("serving " + ", ".join(f"{name}{_when(plan, name)}" for name in deployments))
    try:
        await runner.start()
    finally:
        stop.set()
        for thread in threads:
            thread.join(_RESTART_S)  # hashing a large folder may take longer; it is a daemon


def _when(plan: Plan, flow: str) -> str:
    return f" ({plan.cron(flow)} {plan.timezone})" if plan.cron(flow) else ""


async def _deploy(runner: Any, place: Workspace, plan: Plan) -> dict[str, UUID]:
    from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
    from prefect.client.schemas.schedules import CronSchedule
    from prefect.types.entrypoint import EntrypointType
    from pydantic import ValidationError

    from pipelines.flows.run import flows

    one = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.ENQUEUE)
    deployments = {}
    for name, flow in flows().items():
        cron = plan.cron(name)
        try:
            schedule = CronSchedule(cron=cron, timezone=plan.timezone) if cron else None
        except ValidationError as error:
            msg = f"{name}: expected a cron expression and a time zone, found {cron!r} and {plan.timezone!r}"
            raise UsageError(msg) from error
        deployments[name] = await runner.aadd_flow(
            flow,
            name=deployment_name(place),
            schedule=schedule,
            paused=False,
            concurrency_limit=one,
            parameters={"workspace": str(place.root)},
            tags=["segfoundry"],
            entrypoint_type=EntrypointType.MODULE_PATH,  # a path would have to lie below the present folder
        )
    return deployments


def _announce(place: Workspace, why: str) -> None:
    """An event on Prefect's page, for automations of the user's own; the run does not hang on it."""
    from prefect.events import emit_event

    with contextlib.suppress(Exception):
        emit_event(
            event="segfoundry.data.arrived",
            resource={"prefect.resource.id": f"segfoundry.workspace.{deployment_name(place)}"},
            payload={"workspace": str(place.root), "why": why},
        )


@contextlib.contextmanager
def _only_one(state: Path) -> Iterator[None]:
    """The right to serve a workspace; it ends with the process, however that ends."""
    state.mkdir(parents=True, exist_ok=True)
    with (state / _LOCK).open("a+b") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            msg = f"{state.parent}: another `segfoundry flow serve` serves this workspace. End it first"
            raise UsageError(msg) from None
        yield


@contextlib.contextmanager
def _loud(say: Callable[[str], None]) -> Iterator[None]:
    """What keeper and watcher log is said to whoever started this."""

    class _Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            say(record.getMessage())

    handler = _Handler(logging.INFO)
    loggers = [logging.getLogger(f"pipelines.{name}") for name in ("keeper", "watch", "serve")]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
