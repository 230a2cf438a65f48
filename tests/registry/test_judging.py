"""A whole candidate: registered with its files, judged, promoted, and asked about afterwards."""

from __future__ import annotations

from collections.abc import Callable

from registry.audit import audit_model
from registry.judging import judge
from registry.promote import promote
from registry.store import RegistryStore
from tests.registry.conftest import MODEL, RULES, Made


def test_what_a_promoted_version_says_about_itself(store: RegistryStore, make: Callable[..., Made]):
    made = make("first")
    version = made.register(store).version
    rules = {**RULES, "licence": "any", "leakage_clean": True}
    gate = judge(store, MODEL, version, rules, current_data_version="data-v1", leakage={"ok": True})
    assert gate.passed, gate.failures
    promote(store, MODEL, version, gate=gate, actor="ann", reason="nightly")

    answer = audit_model(store, MODEL, "champion")
    assert (answer["version"], answer["aliases"]) == (version, ["champion"])
    assert answer["gate"] == gate.to_dict()
    assert answer["data_version"] == "data-v1"
    assert {one["dataset"]: one["manifest_digest"] for one in answer["datasets"]} == made.lineage["manifest_digests"]
    assert answer["parameters"]["train.recipe"] == "tiny"
    assert [one["action"] for one in answer["ledger"]] == ["promote", "done"]

    # the champion keeps the verdict that it was promoted with, whatever is asked of others today
    kept = judge(store, MODEL, "champion", {"min_dice_text": 0.99}, current_data_version="data-v9")
    assert kept == gate
