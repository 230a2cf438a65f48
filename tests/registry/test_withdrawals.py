"""Models that saw a withdrawn case: what the ledger knows of a use is said once and never weakened."""

from __future__ import annotations

from collections.abc import Callable

from registry.store import RegistryStore
from registry.withdrawals import WITHDRAW, learnt_and_withdrawn, mark_withdrawn
from tests.registry.conftest import MODEL, Made


def test_a_later_look_that_finds_less_takes_nothing_back_and_writes_nothing(
    store: RegistryStore, make: Callable[..., Made]
) -> None:
    make("a").register(store)

    def mark(*uses: str, key: str = "BUSI/p1") -> list[str]:
        seen = [{"version": 1, "use": use} for use in uses]
        (marked,) = mark_withdrawn(store, MODEL, seen, key, reason="consent", actor="dpo")
        return list(marked["uses"])

    def rows() -> list[list[str]]:
        return [one.details["uses"] for one in store.ledger.entries(MODEL) if one.action == WITHDRAW]

    assert mark("tested on") == ["tested on"]
    assert mark("trained on", "tested on") == ["tested on", "trained on"]  # of a copy that came to light
    assert rows() == [["tested on"], ["tested on", "trained on"]]
    for fewer in (["tested on"], ["trained on"], ["tested on", "trained on"]):  # the copy left the workspace
        assert mark(*fewer) == ["tested on", "trained on"]
    assert len(rows()) == 2
    assert learnt_and_withdrawn(store, MODEL, 1) == ["BUSI/p1"]
    mark("tested on", key="BUSI/p2")  # another case is another matter
    assert len(rows()) == 3
    assert store.ledger.verify().ok
