"""Keeps the runs of a workspace honest: one whose process died is marked crashed, and taken up again.

Prefect's runner notices a killed child of its own; nobody notices a killed runner, a killed `segfoundry flow run`, or a
machine that was switched off. This looks every few seconds. A run that is taken up is a new run of the same
deployment: what the dead one finished is found done.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any
from uuid import UUID

from pipelines.workspace import Workspace

_LOG = logging.getLogger(__name__)
EVERY_S = 5.0
MOST_ATTEMPTS = 3
"""A run that kills its machine is not started for ever: so many runs after the first."""
OLDEST_S = 7 * 86_400.0
_ATTEMPT = "attempt:"


class Keeper:
    """Looks after the runs of a workspace on one Prefect server; `deployments` is flow name -> deployment id."""

    def __init__(self, place: Workspace, deployments: dict[str, UUID]) -> None:
        self.place, self.deployments = place, deployments
        self._given_up: set[UUID] = set()

    def look(self, client: Any) -> list[str]:
        """Close what is dead and take up what crashed; returns what was done, in words."""
        from pipelines.flows.closing import close_dead

        done = [
            f"{run.name} {run.id} crashed: {why}"
            for run, why in close_dead(client, self.place.state, str(self.place.root))
        ]
        for name, deployment in self.deployments.items():
            newest = self._newest(client, deployment, name)
            if newest is not None and newest.state_name == "Crashed":
                done += self._take_up(client, newest, deployment)
        return done

    def start(self, client: Any, name: str, *, why: str, key: str, tags: list[str] | None = None) -> UUID:
        """Ask the server for a run of a flow; the same `key` twice is one run. Returns its id."""
        run = client.create_flow_run_from_deployment(
            self.deployments[name], idempotency_key=key, tags=tags or [], name=f"{name}: {why}"[:120]
        )
        return UUID(str(run.id))

    def _newest(self, client: Any, deployment: UUID, name: str) -> Any:
        """The run of a flow in this workspace that began last and counts (`_counts`); None where there is none."""
        from prefect.client.schemas.objects import StateType

        from pipelines.flows.closing import runs_in

        states: list[StateType] = [one for one in StateType if one != StateType.SCHEDULED]
        runs: list[Any] = list(runs_in(client, str(self.place.root), states))
        began = [run for run in runs if _counts(run) and self._is(client, run, name)]
        return max(began, key=lambda run: run.start_time or run.expected_start_time or run.created, default=None)

    def _is(self, client: Any, run: Any, name: str) -> bool:
        if run.deployment_id == self.deployments[name]:
            return True
        return run.deployment_id is None and client.read_flow(run.flow_id).name == name

    def _take_up(self, client: Any, run: Any, deployment: UUID) -> list[str]:
        attempt = next((int(tag.removeprefix(_ATTEMPT)) for tag in run.tags if tag.startswith(_ATTEMPT)), 0)
        crashed_s = run.state.timestamp.timestamp()
        if run.id in self._given_up or time.time() - crashed_s > OLDEST_S:
            return []
        if attempt >= MOST_ATTEMPTS:
            self._given_up.add(run.id)
            return [f"{run.name} {run.id} crashed {attempt + 1} times in a row: not started again, see its logs"]
        name = client.read_flow(run.flow_id).name
        why = "takes up a crashed run"
        key = f"after-{run.id}"
        before = client.read_flow_run(run.id)
        if f"taken-up-by:{deployment}" in before.tags:
            return []
        new = self.start(client, name, why=why, key=key, tags=[f"{_ATTEMPT}{attempt + 1}", f"after:{run.id}"])
        client.update_flow_run(run.id, tags=[*before.tags, f"taken-up-by:{deployment}"])
        return [f"{run.name} {run.id} is taken up by {new}"]


def _counts(run: Any) -> bool:
    """Whether a run stands for its flow: one by hand that did not do the work says nothing of a served one before it.

    Such a run was refused, as another works here, or failed, or was ended with Ctrl-C: whoever started it knows. One
    that was found dead is taken up like a served one.
    """
    from pipelines.flows.closing import FOUND_DEAD

    if run.deployment_id is not None or not run.state.is_final() or run.state.is_completed():
        return True
    return bool(run.state.is_crashed()) and str(run.state.message or "").startswith(FOUND_DEAD)


def keep_until(stop: threading.Event, keeper: Keeper, every_s: float = EVERY_S) -> None:
    """Look every few seconds until `stop`; a server that does not answer is asked again."""
    from prefect.client.orchestration import get_client

    while not stop.wait(every_s):
        try:
            with get_client(sync_client=True) as client:
                for line in keeper.look(client):
                    _LOG.warning("%s", line)
        except Exception as error:  # noqa: BLE001 - whatever it is, the next look may work
            _LOG.warning("Prefect cannot be asked about runs: %s", error)
