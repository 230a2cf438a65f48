"""Other teams keep models in the same MLflow, under names of their own: ours are audited, theirs are left alone."""

from __future__ import annotations

import pytest

from pipelines.audits.case import all_models, seen_by
from registry.audit import audit_ledger
from registry.judging import judge
from registry.promote import promote
from registry.store import RegistryStore
from registry.withdrawals import WITHDRAWN_TAG, mark_withdrawn
from tests.registry.conftest import MODEL, RULES
from tests.registry.light import Light

FOREIGN = ("xray-cls", "Chest X-ray", "Mary's model", "both ' and \"", "ends with \\")


def promoted(store: RegistryStore) -> int:
    version = Light("first").version(store, MODEL)
    gate = judge(store, MODEL, version, RULES, current_data_version="data-v1")
    promote(store, MODEL, version, gate=gate, actor="ann", reason="nightly")
    return version


@pytest.fixture
def shared(store: RegistryStore) -> RegistryStore:
    """A registry in which others have champions, too."""
    for name in FOREIGN:
        store.client.create_registered_model(name)
        store.client.create_model_version(name, "file:///somewhere", tags={"team": "radiology"})
        store.client.set_registered_model_alias(name, "champion", "1")
    return store


def test_an_alias_of_another_teams_model_is_no_finding(shared: RegistryStore):
    promoted(shared)
    assert audit_ledger(shared)["ok"]
    assert shared.our_models() == [MODEL]
    for name in FOREIGN:  # whoever asks for one by its name gets that one
        assert [(one.name, one.version, one.aliases) for one in shared.versions(name)] == [(name, 1, ("champion",))]


def test_a_withdrawal_looks_at_our_models_alone_whatever_the_others_are_called(shared: RegistryStore):
    version = promoted(shared)
    digest = shared.lineage_of(MODEL, version)["manifest_digests"]["BUSI"]
    place = {"dataset": "BUSI", "manifest_digest": digest, "split": "train"}
    assert [(one.name, one.version) for one in all_models(shared)] == [(MODEL, version)]
    assert [one["use"] for one in seen_by(shared, [place])] == ["trained on"]


@pytest.mark.parametrize("renamed", ["Polyps of ward 3", 'Ann\'s "polyps"'])
def test_a_model_of_ours_that_somebody_renamed_is_still_found(shared: RegistryStore, renamed: str):
    version = Light("first").version(shared, MODEL)
    digest = shared.lineage_of(MODEL, version)["manifest_digests"]["BUSI"]
    shared.client.rename_registered_model(MODEL, renamed)
    seen = seen_by(shared, [{"dataset": "BUSI", "manifest_digest": digest, "split": "train"}])
    assert [one["model"] for one in seen] == [renamed]
    mark_withdrawn(shared, renamed, seen, "BUSI/p0", reason="consent", actor="ann")
    assert WITHDRAWN_TAG in shared.resolve(renamed, version).tags


def test_a_promoted_model_that_was_deleted_is_a_finding(shared: RegistryStore):
    promoted(shared)
    shared.client.delete_registered_model(MODEL)
    assert "the ledger says champion 1, MLflow says None" in audit_ledger(shared)["drift"][0]
