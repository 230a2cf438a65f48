"""Aliases moved in MLflow by hand: nothing builds on them, and a person settles them with a row in the ledger."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from infra.errors import CheckFailed, UsageError
from registry import intents, moved
from registry.audit import audit_ledger
from registry.gate import GateReport
from registry.intents import AliasesMoved
from registry.judging import judge
from registry.moved import adopt, check_aliases, restore
from registry.promote import ApprovalNeeded, Promotion, promote, reconcile, rollback
from registry.store import RegistryStore
from tests.registry.conftest import MODEL, RULES, rolled_back
from tests.registry.light import Light

Two = tuple[Light, Light]


def gate_of(store: RegistryStore, made: Light) -> GateReport:
    return judge(store, MODEL, made.version(store, MODEL), RULES, current_data_version="data-v1")


def _promote(store: RegistryStore, made: Light, *, unattended: bool = False) -> Promotion:
    gate, version = gate_of(store, made), made.version(store, MODEL)
    return promote(store, MODEL, version, gate=gate, actor="ann", reason="nightly", unattended=unattended)


def by_hand(store: RegistryStore, alias: str, version: int | None) -> None:
    if version is None:
        store.client.delete_registered_model_alias(MODEL, alias)
    else:
        store.client.set_registered_model_alias(MODEL, alias, str(version))


@pytest.fixture
def two(store: RegistryStore) -> Two:
    """Version 2 serves, version 1 did before."""
    made = Light("first"), Light("second", change={"BUSI": 0.1})
    for one in made:
        _promote(store, one)
    assert store.aliases(MODEL) == {"champion": 2, "previous": 1}
    return made


@pytest.mark.parametrize("where", [{"champion": 1}, {"previous": 3}, {"previous": None}, {"champion": None}])
def test_nothing_is_promoted_or_taken_back_while_aliases_are_not_the_ledgers(
    store: RegistryStore, two: Two, where: dict[str, int | None]
):
    third = Light("third", change={"BUSI": 0.2})
    assert third.version(store, MODEL) == 3
    gate = gate_of(store, third)
    for alias, version in where.items():
        by_hand(store, alias, version)
    rows = store.ledger.entries()
    with pytest.raises(AliasesMoved, match=r"champion version 2, previous version 1\), found in MLflow") as refused:
        promote(store, MODEL, 3, gate=gate, actor="ann", reason="nightly")
    assert refused.value.exit_code == 2
    assert "--restore" in str(refused.value)
    assert "--adopt" in str(refused.value)
    for attempt in (lambda: rollback(store, MODEL, actor="bob", reason="back"), lambda: check_aliases(store, MODEL)):
        with pytest.raises(AliasesMoved):
            attempt()
    assert store.ledger.entries() == rows
    assert len(audit_ledger(store)["drift"]) == 1
    assert next(iter(where)) in audit_ledger(store)["drift"][0]

    entry = restore(store, MODEL, actor="bob", reason="a slip")
    assert entry is not None
    assert store.aliases(MODEL) == {"champion": 2, "previous": 1}
    assert [(one.action, one.actor, one.reason) for one in store.ledger.entries()[-2:]] == [
        ("restore", "bob", "a slip"), ("done", "bob", "a slip"),
    ]  # fmt: skip
    assert audit_ledger(store)["ok"]
    assert restore(store, MODEL, actor="bob", reason="again") is None
    assert promote(store, MODEL, 3, gate=gate, actor="ann", reason="nightly").previous == 2


def test_what_is_adopted_is_what_the_next_decision_starts_from(store: RegistryStore, two: Two):
    by_hand(store, "champion", 1)
    with pytest.raises(UsageError, match="who does this and why"):
        adopt(store, MODEL, actor="bob", reason=" ")
    assert adopt(store, MODEL, actor="bob", reason="wrong on site B") is not None
    row = store.ledger.entries()[-2]
    assert (row.action, row.version, row.details["before"]) == ("adopt", 1, {"champion": 2, "previous": 1})
    assert row.details["verdict"] == "pass"
    assert audit_ledger(store)["ok"]
    assert adopt(store, MODEL, actor="bob", reason="again") is None
    # who takes a model out of service by hand means it as much as by a rollback
    assert rolled_back(store, 2)
    with pytest.raises(ApprovalNeeded, match="bob took its weights out of service"):
        _promote(store, two[1], unattended=True)
    assert _promote(store, two[1]).champion == 2
    assert rollback(store, MODEL, actor="bob", reason="back").champion == 1


def test_a_workspace_with_aliases_and_no_ledger_is_adopted_and_not_emptied(store: RegistryStore):
    first, second = Light("first"), Light("second", change={"BUSI": 0.1})
    first.version(store, MODEL)
    by_hand(store, "champion", 1)
    with pytest.raises(AliasesMoved, match=r"champion none, previous none.*Take them as they are") as refused:
        _promote(store, second)
    assert "--restore" not in str(refused.value)
    with pytest.raises(UsageError, match="expected rows in the ledger"):
        restore(store, MODEL, actor="bob", reason="why not")
    assert store.aliases(MODEL) == {"champion": 1}
    adopt(store, MODEL, actor="bob", reason="from before there was a ledger")
    assert _promote(store, second).previous == 1
    assert audit_ledger(store)["ok"]


def test_a_champion_deleted_in_mlflow_is_named_and_can_only_be_adopted(store: RegistryStore, two: Two):
    store.client.delete_model_version(MODEL, "2")
    with pytest.raises(AliasesMoved, match="Version 2 is not in MLflow any more") as refused:
        rollback(store, MODEL, actor="bob", reason="back")
    assert "--restore" not in str(refused.value)
    with pytest.raises(UsageError, match="not there any more"):
        restore(store, MODEL, actor="bob", reason="back")
    adopt(store, MODEL, actor="bob", reason="deleted to save space")
    assert audit_ledger(store)["ok"]
    with pytest.raises(CheckFailed, match="previous champion"):
        rollback(store, MODEL, actor="bob", reason="back")
    assert _promote(store, Light("third", change={"BUSI": 0.2})).champion == 3


def test_a_previous_champion_deleted_in_mlflow_is_none_and_stops_nothing(store: RegistryStore, two: Two):
    store.client.delete_model_version(MODEL, "1")
    assert audit_ledger(store)["ok"]
    with pytest.raises(CheckFailed, match="previous champion"):
        rollback(store, MODEL, actor="bob", reason="back")
    assert Light("third", change={"BUSI": 0.2}).version(store, MODEL) == 3
    by_hand(store, "previous", 3)
    with pytest.raises(AliasesMoved, match=r"previous none\), found"):
        rollback(store, MODEL, actor="bob", reason="back")
    assert restore(store, MODEL, actor="bob", reason="a slip") is not None
    assert store.aliases(MODEL) == {"champion": 2}
    assert _promote(store, Light("fourth", change={"BUSI": 0.3})).previous == 2


def test_a_version_of_somebody_elses_is_not_adopted_nor_is_another_one_restored_under_its_number(
    store: RegistryStore, two: Two
):
    run = store.client.create_run(store._experiment("light")).info
    store.client.create_model_version(MODEL, f"{run.artifact_uri}/x", run_id=run.run_id)
    by_hand(store, "previous", 3)
    with pytest.raises(UsageError, match="version 3: expected a version that segfoundry registered"):
        adopt(store, MODEL, actor="bob", reason="why not")
    store.client.set_model_version_tag(MODEL, "1", "segfoundry.weights_sha256", "0" * 64)
    with pytest.raises(UsageError, match="other weights under that number"):
        restore(store, MODEL, actor="bob", reason="back")


def test_a_crash_is_repaired_and_not_taken_for_somebodys_hand(
    store: RegistryStore, two: Two, monkeypatch: pytest.MonkeyPatch
):
    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    def killed(name: str, act: Callable[[], object]) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(intents, name, die)
            with pytest.raises(Killed):
                act()

    killed("apply", lambda: rollback(store, MODEL, actor="bob", reason="back"))
    check_aliases(store, MODEL)
    assert rollback(store, MODEL, actor="bob", reason="and on").champion == 2

    by_hand(store, "previous", None)
    killed("apply", lambda: restore(store, MODEL, actor="bob", reason="a slip"))
    assert [one.action for one in reconcile(store, MODEL)] == ["done"]
    assert store.aliases(MODEL) == {"champion": 2, "previous": 1}

    # the version of a promotion that was killed was deleted before anybody came
    third = Light("third", change={"BUSI": 0.2})
    gate, number = gate_of(store, third), third.version(store, MODEL)
    killed("apply", lambda: promote(store, MODEL, number, gate=gate, actor="ann", reason="nightly"))
    store.client.delete_model_version(MODEL, str(number))
    with pytest.raises(AliasesMoved, match="not in MLflow any more"):
        reconcile(store, MODEL)
    moved.adopt(store, MODEL, actor="bob", reason="deleted")
    assert store.aliases(MODEL) == {"champion": 2, "previous": 1}
    assert reconcile(store, MODEL) != []  # the row of the killed promotion is closed
    assert audit_ledger(store)["ok"]


def test_weights_that_were_taken_back_are_not_promoted_under_another_number_by_themselves(
    store: RegistryStore, two: Two
):
    rollback(store, MODEL, actor="bob", reason="odd masks")
    again = Light("second", change={"BUSI": 0.11})  # the same weights, evaluated again
    assert again.version(store, MODEL) == 3
    assert rolled_back(store, 3)
    for _ in range(2):  # said twice, it is written down once
        with pytest.raises(ApprovalNeeded, match=r"bob took its weights out of service on .* \(odd masks\)"):
            _promote(store, again, unattended=True)
    assert store.aliases(MODEL) == {"champion": 1, "previous": 2, "challenger": 3}
    waits = [one for one in store.ledger.entries() if one.action == "wait"]
    assert [one.version for one in waits] == [3]
    assert "odd masks" in waits[0].reason
    # others are not held up, and do not make it forgotten
    assert _promote(store, Light("fourth", change={"BUSI": 0.05}), unattended=True).champion == 4
    assert rolled_back(store, 2)
    assert rolled_back(store, 3)
    # a person may, and then it is as any other
    assert _promote(store, again).champion == 3
    assert not rolled_back(store, 2)
    # taken back once more, and put back by the next rollback
    rollback(store, MODEL, actor="bob", reason="again")
    assert rolled_back(store, 3)
    rollback(store, MODEL, actor="bob", reason="it was the scanner")
    assert not rolled_back(store, 3)
    assert rolled_back(store, 4)
