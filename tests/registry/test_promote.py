from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from infra.errors import CheckFailed, UsageError
from registry import intents
from registry import promote as module
from registry.audit import audit_ledger
from registry.gate import GateReport
from registry.judging import judge as judge_version
from registry.promote import Approval, ApprovalNeeded, promote, reconcile, rollback
from registry.store import RegistryStore
from registry.withdrawals import learnt_and_withdrawn, mark_withdrawn
from tests.registry.conftest import MODEL, RULES, rolled_back, unguarded
from tests.registry.light import Light

Make = Callable[..., Light]
STRICT: dict[str, Any] = {
    **RULES,
    "max_false_alarm_rate": 0.5,
    "no_significant_loss": {"tolerance": 0.02, "min_groups": 5, "few_groups_tolerance": 0.2},
    "leakage_clean": True,
    "licence": "any",
}


@pytest.fixture
def make() -> Make:
    return Light


def judge(store: RegistryStore, made: Light, rules: dict[str, Any] = STRICT, current: str = "data-v1") -> GateReport:
    version = _version(store, made)
    return judge_version(store, MODEL, version, rules, current_data_version=current, leakage={"ok": True, "matrix": []})


def _version(store: RegistryStore, made: Light) -> int:
    return made.version(store, MODEL)


def _promote(
    store: RegistryStore, made: Light, rules: dict[str, Any] = STRICT, approval: Approval | None = None
) -> module.Promotion:
    gate = judge(store, made, rules)
    version = _version(store, made)
    return promote(store, MODEL, version, gate=gate, actor="ann", reason="nightly", approval=approval)


def test_the_story_of_two_good_models_a_bad_one_and_the_way_back(store: RegistryStore, make: Make):
    first, better = make("first"), make("better", change={"BUSI": 0.02})
    assert _promote(store, first).champion == 1
    assert store.aliases(MODEL) == {"champion": 1}
    assert _promote(store, better) == module.Promotion(MODEL, champion=2, previous=1, changed=True)
    assert store.aliases(MODEL) == {"champion": 2, "previous": 1}

    regressed = make("regressed", concepts={"polyp": -0.05})  # its dataset's mean alone would not show it
    with pytest.raises(CheckFailed, match="concept polyp") as refused:
        _promote(store, regressed)
    assert refused.value.exit_code == 1
    assert store.aliases(MODEL) == {"champion": 2, "previous": 1, "challenger": 3}
    failures = store.resolve(MODEL, 3).tags["segfoundry.gate_failures"]
    assert "no_significant_loss concept polyp" in failures
    assert "hippocampus" not in failures
    verdicts = store.ledger.entries(MODEL)[-1].details["rules"]
    [polyp] = [one for one in verdicts if one["subject"] == "concept polyp"]
    assert (polyp["ok"], polyp["limit"]) == (False, -0.02)
    assert polyp["value"] == pytest.approx(-0.05)

    # the same again adds nothing: neither a promotion that is in force nor the same refusal
    before = len(store.ledger.entries())
    assert not _promote(store, better).changed
    with pytest.raises(CheckFailed):
        _promote(store, regressed)
    assert len(store.ledger.entries()) == before

    assert rollback(store, MODEL, actor="bob", reason="odd masks on BUSI").champion == 1
    assert store.aliases(MODEL) == {"champion": 1, "previous": 2, "challenger": 3}
    assert rolled_back(store, 2)
    assert not rolled_back(store, 1)
    story = [(entry.action, entry.version, entry.actor) for entry in store.ledger.entries(MODEL)]
    assert story == [
        ("promote", 1, "ann"), ("done", 1, "ann"), ("promote", 2, "ann"), ("done", 2, "ann"),
        ("block", 3, "ann"), ("rollback", 1, "bob"), ("done", 1, "bob"),
    ]  # fmt: skip
    assert audit_ledger(store)["ok"]

    # what was better once is judged against who serves now
    assert _promote(store, make("best", change={"BUSI": 0.1})).previous == 1
    assert [entry.action for entry in store.ledger.entries(MODEL)][-2:] == ["promote", "done"]


def test_a_version_that_learnt_from_a_withdrawn_case_serves_again_only_where_somebody_says_so(
    store: RegistryStore, make: Make
):
    _promote(store, make("old"))
    _promote(store, make("new", change={"BUSI": 0.1}))
    tested, trained = [{"version": 1, "use": "tested on"}], [{"version": 1, "use": "trained on"}]
    mark_withdrawn(store, MODEL, tested, "BUSI/p1", reason="consent", actor="dpo")
    assert learnt_and_withdrawn(store, MODEL, 1) == []
    mark_withdrawn(store, MODEL, trained, "BUSI/p2", reason="consent", actor="dpo")

    with pytest.raises(CheckFailed, match="BUSI/p2"):
        rollback(store, MODEL, actor="bob", reason="odd masks")
    assert store.aliases(MODEL)["champion"] == 2
    assert rollback(store, MODEL, actor="bob", reason="odd masks", despite_withdrawal=True).champion == 1
    kept = [one for one in store.ledger.entries(MODEL) if one.action == "rollback"]
    assert [one.details["despite_withdrawal"] for one in kept] == [["BUSI/p2"]]


def test_rules_that_ask_for_a_person_wait_for_one(store: RegistryStore, make: Make):
    rules = {**STRICT, "approval": True}
    first = make("first")
    for _ in range(2):  # said twice, it is written down once
        with pytest.raises(ApprovalNeeded, match="--approve"):
            _promote(store, first, rules)
    assert store.aliases(MODEL) == {"challenger": 1}
    with pytest.raises(UsageError, match="name of who approves"):
        _promote(store, first, rules, Approval("", "because"))
    done = _promote(store, first, rules, Approval("Dr. Okafor", "read 20 cases with the team"))
    assert done.changed
    assert store.aliases(MODEL) == {"champion": 1}
    story = store.ledger.entries(MODEL)
    assert [entry.action for entry in story] == ["wait", "promote", "done"]
    assert story[1].details["approval"] == {"by": "Dr. Okafor", "reason": "read 20 cases with the team"}

    # nobody can approve what the gate blocks
    with pytest.raises(CheckFailed, match="BUSI"):
        _promote(store, make("worse", change={"BUSI": -0.2}), rules, Approval("Dr. Okafor", "we need it"))


def test_a_champion_without_rows_to_compare_with_blocks_and_says_so(store: RegistryStore, make: Make):
    first = make("first")
    _promote(store, first)
    folder = store.resolve(MODEL, 1)
    path = store.client.get_run(folder.run_id).info.artifact_uri.removeprefix("file://")
    Path(path, "evaluation/evaluation.parquet").unlink()
    [failure] = judge(store, make("better", change={"BUSI": 0.1})).failures
    assert (failure.name, failure.subject) == ("no_significant_loss", "")
    assert "evaluate the champion" in failure.explanation


def test_a_model_on_old_data_is_blocked_by_the_newer_data_version(store: RegistryStore, make: Make):
    [failure] = judge(store, make("late"), current="data-v2").failures
    assert failure.name == "current_data_version"


def test_a_crash_between_ledger_and_aliases_is_repaired_by_whoever_comes_next(
    store: RegistryStore, make: Make, monkeypatch: pytest.MonkeyPatch
):
    first, better = make("first"), make("better")
    _promote(store, first)

    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(intents, "apply", die)
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
        patch.setattr(intents, "close", die)
        with pytest.raises(Killed):
            rollback(store, MODEL, actor="bob", reason="back")
    assert store.aliases(MODEL)["champion"] == 1
    assert not promote(store, MODEL, 1, gate=judge(store, first), actor="ann", reason="again").changed
    assert [entry.action for entry in store.ledger.entries()][-2:] == ["rollback", "done"]


def test_a_gate_that_was_not_about_this_version_or_this_champion_promotes_nothing(store: RegistryStore, make: Make):
    first, better = make("first"), make("better")
    version, other = _version(store, first), _version(store, better)
    gate, stale = judge(store, first), judge(store, better)
    with pytest.raises(CheckFailed, match="run the gate for this version"):
        promote(store, MODEL, other, gate=gate, actor="ann", reason="wrong report")
    promote(store, MODEL, version, gate=gate, actor="ann", reason="right report")
    # decided when there was no champion
    with pytest.raises(CheckFailed, match="against the present champion"):
        promote(store, MODEL, other, gate=stale, actor="ann", reason="stale report")
    assert store.aliases(MODEL) == {"champion": 1}


def test_a_promotion_waits_for_the_one_at_work_and_is_then_told(store: RegistryStore, make: Make, tmp_path: Path):
    one, other = make("one"), make("other")
    first, second = _version(store, one), _version(store, other)
    gates = judge(store, one), judge(store, other)
    slower = RegistryStore(store.tracking_uri, tmp_path / "mlartifacts")
    assert slower.ledger.head() is None
    with ThreadPoolExecutor(1) as pool:
        with store.ledger.exclusive():
            waiting = pool.submit(promote, slower, MODEL, first, gate=gates[0], actor="ann", reason="slower")
            with pytest.raises(TimeoutError):
                waiting.result(timeout=0.3)
            assert store.ledger.entries() == []
        waiting.result(timeout=30)
    with pytest.raises(CheckFailed, match="against the present champion"):
        promote(store, MODEL, second, gate=gates[1], actor="bob", reason="later")
    assert store.aliases(MODEL) == {"champion": first}
    assert audit_ledger(store)["ok"]


def test_nothing_to_roll_back_to_is_said(store: RegistryStore, make: Make):
    _promote(store, make("only"))
    with pytest.raises(CheckFailed, match="previous champion"):
        rollback(store, MODEL, actor="bob", reason="back")


def test_a_ledger_cut_off_at_its_end_and_an_alias_set_by_hand_are_found(store: RegistryStore, make: Make):
    _promote(store, make("first"))
    _promote(store, make("better"))
    store.client.set_registered_model_alias(MODEL, "champion", "1")
    answer = audit_ledger(store)
    assert not answer["ok"]
    assert "champion 2, MLflow says 1" in answer["drift"][0]
    store.client.set_registered_model_alias(MODEL, "champion", "2")
    assert audit_ledger(store)["ok"]
    unguarded(store.tracking_uri, "DELETE FROM segfoundry_ledger WHERE position = 4")
    answer = audit_ledger(store)
    assert not answer["ok"]
    assert "version 2 vouches for ledger row 4" in answer["problems"][0]


def test_of_many_promotions_at_once_one_wins_and_leaves_the_aliases_that_the_ledger_says(
    store: RegistryStore, make: Make, tmp_path: Path
):
    made = [make(f"m{number}") for number in range(4)]
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
