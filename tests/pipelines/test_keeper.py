"""Which crashed run is taken up: the newest of its flow, whatever runs by hand tried and did not do in between."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest

from pipelines.keeper import Keeper
from pipelines.workspace import Workspace

DEPLOYMENT = uuid4()
FOUND_DEAD = "found dead: it was killed"
NOW = datetime.now(UTC)


class Server:
    """As much of Prefect's client as a keeper asks, over runs of one flow."""

    def __init__(self, place: Workspace) -> None:
        self.place = place
        self.runs: list[Any] = []
        self.flow = SimpleNamespace(id=uuid4(), name="retrain")

    def began(self, state: str, message: str = "", *, served: bool = True) -> UUID:
        """A run that began after all others, a minute each."""
        from prefect.client.schemas.objects import FlowRun, State, StateType

        run = FlowRun(
            name=f"run {len(self.runs)}",
            flow_id=self.flow.id,
            deployment_id=DEPLOYMENT if served else None,
            parameters={"workspace": str(self.place.root)},
            state=State(type=StateType(state.upper()), message=message),
            state_name=state.capitalize(),
            start_time=NOW - timedelta(hours=1) + timedelta(minutes=len(self.runs)),
        )
        self.runs.append(run)
        return run.id

    def read_flow_runs(self, *, flow_run_filter: Any, **_: Any) -> list[Any]:
        return [run for run in self.runs if run.state.type in flow_run_filter.state.type.any_]

    def read_flow(self, _: UUID) -> Any:
        return self.flow

    def read_flow_run(self, run_id: UUID) -> Any:
        return next(run for run in self.runs if run.id == run_id)

    def update_flow_run(self, run_id: UUID, *, tags: list[str]) -> None:
        self.read_flow_run(run_id).tags = tags

    def create_flow_run_from_deployment(self, _: UUID, *, tags: list[str], **__: Any) -> Any:
        run = self.read_flow_run(self.began("scheduled"))
        run.tags, run.start_time = tags, None
        return run


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return Server(Workspace(tmp_path / "workspace"))


def _taken_up(server: Server) -> list[str]:
    """Ids of the runs that a look takes up; a second look takes up nothing more."""
    keeper = Keeper(server.place, {"retrain": DEPLOYMENT})
    said = keeper.look(server)
    assert keeper.look(server) == []
    new = [run for run in server.runs if run.state.is_scheduled()]
    assert len(said) == len(new)
    return [tag.removeprefix("after:") for run in new for tag in run.tags if tag.startswith("after:")]


def test_a_served_run_that_died_is_taken_up_though_runs_by_hand_were_refused_meanwhile(server: Server) -> None:
    dead = server.began("crashed", FOUND_DEAD)
    server.began("failed", "UsageError: another run works in the workspace", served=False)
    server.began("crashed", "Execution was aborted by Ctrl-C", served=False)
    server.began("cancelled", served=False)
    assert _taken_up(server) == [str(dead)]


@pytest.mark.parametrize(
    "later",
    [
        lambda server: server.began("completed", served=False),  # somebody did the work by hand
        lambda server: server.began("completed"),
        lambda server: server.began("failed", "DataError: bad input stays bad"),
    ],
)
def test_a_later_run_that_did_the_work_or_was_served_leaves_nothing_to_take_up(
    server: Server, later: Callable[[Server], UUID]
) -> None:
    server.began("crashed", FOUND_DEAD)
    later(server)
    assert _taken_up(server) == []


def test_a_run_by_hand_is_taken_up_where_it_was_found_dead_and_not_where_it_was_ended(server: Server) -> None:
    server.began("crashed", "Execution was aborted by Ctrl-C", served=False)
    assert _taken_up(server) == []
    dead = server.began("crashed", FOUND_DEAD, served=False)
    assert _taken_up(server) == [str(dead)]


def test_while_a_run_by_hand_is_at_work_nothing_is_taken_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.flows import closing

    monkeypatch.setattr(closing, "why_dead", lambda *_: "")
    server.began("crashed", FOUND_DEAD)
    server.began("running", served=False)
    assert _taken_up(server) == []
