from __future__ import annotations

import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from infra.errors import CheckFailed
from registry import promote as module
from registry.audit import audit_ledger, audit_model
from registry.gate import GateReport, decide
from registry.promote import promote, reconcile, rollback, rolled_back
from registry.store import RegistryStore
from tests.registry.conftest import MODEL, RULES, Made

Make = Callable[..., Made]


def judge(store: RegistryStore, made: Made) -> GateReport:
    return decide(store.evaluation_of(MODEL, _version(store, made)), store.champion_evaluation(MODEL), RULES,
                  lineage=made.lineage)  # fmt: skip


def _version(store: RegistryStore, made: Made) -> int:
    return made.register(store).version


def _promote(store: RegistryStore, made: Made) -> module.Promotion:
    version = _version(store, made)
    return promote(store, MODEL, version, gate=judge(store, made), actor="ann", reason="nightly")


def test_the_story_of_two_good_models_a_bad_one_and_the_way_back(store: RegistryStore, make: Make):
    first, better = make("first"), make("better", threshold=90.0, change={"BUSI": 0.02})
    assert _promote(store, first).champion == 1
    assert store.aliases(MODEL) == {"champion": 1}
    assert _promote(store, better) == module.Promotion(MODEL, champion=2, previous=1, changed=True)
    assert store.aliases(MODEL) == {"champion": 2, "previous": 1}

    regressed = make("regressed", threshold=80.0, change={"BUSI": -0.2})
    with pytest.raises(CheckFailed, match="BUSI") as refused:
        _promote(store, regressed)
    assert refused.value.exit_code == 1
    assert store.aliases(MODEL) == {"champion": 2, "previous": 1, "challenger": 3}
    assert store.resolve(MODEL, 3).tags["segfoundry.gate_failures"] == "max_loss_per_dataset BUSI"

    # the same again adds nothing: neither a promotion that is in force nor the same refusal
    before = len(store.ledger.entries())
    assert not _promote(store, better).changed
    with pytest.raises(CheckFailed):
        _promote(store, regressed)
    assert len(store.ledger.entries()) == before

    assert rollback(store, MODEL, actor="bob", reason="odd masks on BUSI").champion == 1
    assert store.aliases(MODEL) == {"champion": 1, "previous": 2, "challenger": 3}
    assert rolled_back(store, MODEL, 2)
    assert not rolled_back(store, MODEL, 1)
    story = [(entry.action, entry.version, entry.actor) for entry in store.ledger.entries(MODEL)]
    assert story == [
        ("promote", 1, "ann"), ("done", 1, "ann"), ("promote", 2, "ann"), ("done", 2, "ann"),
        ("block", 3, "ann"), ("rollback", 1, "bob"), ("done", 1, "bob"),
    ]  # fmt: skip
    assert audit_ledger(store)["ok"]

    answer = audit_model(store, MODEL, "champion")
    assert (answer["version"], answer["aliases"]) == (1, ["champion"])
    assert answer["gate"]["verdict"] == "pass"
    assert answer["data_version"] == "data-v1"
    assert {one["dataset"]: one["manifest_digest"] for one in answer["datasets"]} == first.lineage["manifest_digests"]
    assert answer["parameters"]["train.recipe"] == "tiny"
    assert "data-v1" in answer["rebuild"]
    assert [one["action"] for one in answer["ledger"]] == ["promote", "done", "rollback", "done"]


def test_a_crash_between_ledger_and_aliases_is_repaired_by_whoever_comes_next(
    store: RegistryStore, make: Make, monkeypatch: pytest.MonkeyPatch
):
    first, better = make("first"), make("better", threshold=90.0)
    _promote(store, first)

    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(module, "_apply", die)
        with pytest.raises(Killed):
            _promote(store, better)
    assert store.aliases(MODEL) == {"champion": 1}
    [done] = reconcile(store, MODEL)
    assert (done.action, done.version, done.reason) == ("done", 2, "reconciled")
    assert store.aliases(MODEL) == {"champion": 2, "previous": 1}
    assert reconcile(store, MODEL) == []
    assert audit_ledger(store)["ok"]

    # after the aliases, before the done row
    with monkeypatch.context() as patch:
        patch.setattr(module, "_close", die)
        with pytest.raises(Killed):
            rollback(store, MODEL, actor="bob", reason="back")
    assert store.aliases(MODEL)["champion"] == 1
    assert not promote(store, MODEL, 1, gate=judge(store, first), actor="ann", reason="again").changed
    assert [entry.action for entry in store.ledger.entries()][-2:] == ["rollback", "done"]


def test_a_gate_that_was_not_about_this_version_or_this_champion_promotes_nothing(store: RegistryStore, make: Make):
    first, better = make("first"), make("better", threshold=90.0)
    version, other = _version(store, first), _version(store, better)
    gate, stale = judge(store, first), judge(store, better)
    with pytest.raises(CheckFailed, match="run the gate for this version"):
        promote(store, MODEL, other, gate=gate, actor="ann", reason="wrong report")
    promote(store, MODEL, version, gate=gate, actor="ann", reason="right report")
    # decided when there was no champion
    with pytest.raises(CheckFailed, match="against the present champion"):
        promote(store, MODEL, other, gate=stale, actor="ann", reason="stale report")
    assert store.aliases(MODEL) == {"champion": 1}


def test_of_two_promotions_at_once_the_second_is_told(
    store: RegistryStore, make: Make, monkeypatch: pytest.MonkeyPatch
):
    one, other = make("one"), make("other", threshold=90.0)
    first, second = _version(store, one), _version(store, other)
    gates = judge(store, one), judge(store, other)
    intend = module._intend
    raced: list[bool] = []

    def race(*given: object) -> object:
        if not raced:
            raced.append(True)
            promote(store, MODEL, second, gate=gates[1], actor="bob", reason="quicker")
        return intend(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "_intend", race)
    with pytest.raises(CheckFailed, match="bob"):
        promote(store, MODEL, first, gate=gates[0], actor="ann", reason="slower")
    assert store.aliases(MODEL) == {"champion": 2}
    assert audit_ledger(store)["ok"]


def test_nothing_to_roll_back_to_is_said(store: RegistryStore, make: Make):
    _promote(store, make())
    with pytest.raises(CheckFailed, match="previous champion"):
        rollback(store, MODEL, actor="bob", reason="back")


def test_a_ledger_cut_off_at_its_end_and_an_alias_set_by_hand_are_found(
    store: RegistryStore, make: Make, tmp_path: Path
):
    _promote(store, make("first"))
    _promote(store, make("better", threshold=90.0))
    store.client.set_registered_model_alias(MODEL, "champion", "1")
    answer = audit_ledger(store)
    assert not answer["ok"]
    assert "champion 2, MLflow says 1" in answer["drift"][0]
    store.client.set_registered_model_alias(MODEL, "champion", "2")
    assert audit_ledger(store)["ok"]
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        connection.execute("DROP TRIGGER segfoundry_ledger_no_delete")
        connection.execute("DELETE FROM segfoundry_ledger WHERE position = 4")
    answer = audit_ledger(store)
    assert not answer["ok"]
    assert "version 2 vouches for ledger row 4" in answer["problems"][0]


def test_of_many_promotions_at_once_one_wins_and_leaves_the_aliases_that_the_ledger_says(
    store: RegistryStore, make: Make, tmp_path: Path
):
    made = [make(f"m{number}", threshold=100.0 - number) for number in range(4)]
    versions = [_version(store, one) for one in made]
    gates = [judge(store, one) for one in made]

    def run(number: int) -> str:
        own = RegistryStore(store.tracking_uri, tmp_path / "mlartifacts")
        try:
            promote(own, MODEL, versions[number], gate=gates[number], actor=f"p{number}", reason="race")
        except CheckFailed:
            return "refused"
        return "promoted"

    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(run, range(4)))
    # every gate was decided when there was no champion, so only one can be right
    assert sorted(outcomes) == ["promoted", "refused", "refused", "refused"]
    assert store.aliases(MODEL) == {"champion": versions[outcomes.index("promoted")]}
    assert [entry.action for entry in store.ledger.entries()].count("promote") == 1
    assert audit_ledger(store)["ok"]
