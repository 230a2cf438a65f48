"""Promotions at the same time, in several processes, and promotions killed in the middle: on sqlite and PostgreSQL."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from registry.audit import audit_ledger
from registry.gate import GateReport
from registry.judging import judge
from registry.promote import promote, reconcile, rollback
from registry.store import RegistryStore
from tests.faults import promotion_process as processes
from tests.registry.conftest import RULES
from tests.registry.conftest import database_url as database_url
from tests.registry.conftest import empty_database as empty_database
from tests.registry.conftest import postgres_server as postgres_server
from tests.registry.conftest import postgres_template as postgres_template
from tests.registry.conftest import store as store
from tests.registry.light import Light

RACES = 50 if os.environ.get("SEGFOUNDRY_SOAK") else 3
RACERS = 3
Race = Callable[[list[tuple[str, int, GateReport]]], list[str]]


def gate_of(store: RegistryStore, name: str, version: int) -> GateReport:
    return judge(store, name, version, RULES, current_data_version="data-v1")


@pytest.fixture
def race(store: RegistryStore, tmp_path: Path) -> Iterator[Race]:
    start = processes.CONTEXT.Barrier(RACERS)
    pipes, running = [], []
    for _ in range(RACERS):
        ours, theirs = processes.CONTEXT.Pipe()
        given = (store.tracking_uri, tmp_path / "mlartifacts", start, theirs)
        running.append(processes.CONTEXT.Process(target=processes.racer, args=given, daemon=True))
        running[-1].start()
        pipes.append(ours)

    def run(entries: list[tuple[str, int, GateReport]]) -> list[str]:
        for pipe, (name, version, gate) in zip(pipes, entries, strict=True):
            pipe.send((name, version, gate.to_dict()))
        answers = []
        for pipe in pipes:
            assert pipe.poll(90), "a racer does not answer"
            answers.append(pipe.recv())
        return answers

    yield run
    for pipe in pipes:
        pipe.send(None)
    for process in running:
        process.join(timeout=30)
        process.kill()


def test_every_race_has_one_winner_and_the_ledger_stays_one_line(store: RegistryStore, race: Race):
    for number in range(RACES):
        name = f"race-{number}"
        versions = [Light(f"{name}-{one}").version(store, name) for one in range(RACERS)]
        answers = race([(name, one, gate_of(store, name, one)) for one in versions])
        assert answers.count("promoted") == 1, answers
        # every gate was decided when there was no champion, so only one can be right
        assert sum("against the present champion" in one for one in answers) == RACERS - 1, answers
        assert store.aliases(name) == {"champion": versions[answers.index("promoted")]}
        assert [entry.action for entry in store.ledger.entries(name)] == ["promote", "done"]
    found = audit_ledger(store)
    assert (found["ok"], found["entries"]) == (True, 2 * RACES), found


@pytest.mark.parametrize("where", processes.CRASHES)
def test_a_killed_promotion_is_carried_out_and_can_be_taken_back(store: RegistryStore, tmp_path: Path, where: str):
    name = "killed"
    first, second = Light("first"), Light("second", change={"BUSI": 0.1})
    old = first.version(store, name)
    promote(store, name, old, gate=gate_of(store, name, old), actor="ann", reason="the first")
    new = second.version(store, name)
    gate = gate_of(store, name, new).to_dict()
    killed = processes.crash(store.tracking_uri, tmp_path / "mlartifacts", name, new, gate, where)
    assert killed.exitcode == -9
    assert [entry.action for entry in store.ledger.entries(name)] == ["promote", "done", "promote"]
    found = audit_ledger(store)
    assert (found["ok"], found["problems"]) == (False, [])
    assert "reconcile" in found["drift"][0]

    [done] = reconcile(store, name)  # the lock of the killed one is gone with it
    assert (done.action, done.version) == ("done", new)
    assert store.aliases(name) == {"champion": new, "previous": old}
    assert audit_ledger(store)["ok"]
    assert rollback(store, name, actor="bob", reason="back").champion == old
    assert store.aliases(name) == {"champion": old, "previous": new}
    assert audit_ledger(store)["ok"]
