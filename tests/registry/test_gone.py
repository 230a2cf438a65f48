"""A champion whose evaluation somebody deleted is a verdict with a way out; storage that is down is neither."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from infra.errors import CheckFailed, ServiceError
from infra.processes import free_port
from pipelines.flows.policy import can_pass
from registry.artifacts import ArtifactGone
from registry.audit import audit_model, measured_on
from registry.judging import judge
from registry.promote import promote
from registry.store import RegistryStore
from tests.registry.conftest import MODEL, RULES
from tests.registry.light import Light

COMPARING: dict[str, Any] = {
    **RULES,
    "no_significant_loss": {"tolerance": 0.02, "min_groups": 5, "few_groups_tolerance": 0.2},
}


@dataclass
class MeasuredTogether(Light):
    """A candidate whose evaluation measured the champion in the same call."""

    champion: str = ""
    loss: float = 0.0

    @property
    def figures(self) -> dict[str, Any]:
        found = super().figures
        for entry in found["datasets"].values():
            dice = entry["dice_text_after"]
            entry["dice_text_champion"] = None if dice is None else dice + self.loss
        pair = {"against": "champion", "metric": "dice_text", "level": "dataset", "name": "BUSI", "external": False,
                "before": 0.5, "after": 0.5 - self.loss, "difference": -self.loss, "interval": [-self.loss] * 2,
                "groups": 12, "pairs": 40}  # fmt: skip
        return {**found, "against": {"weights_sha256": self.champion}, "paired": [pair]}


@pytest.fixture
def champion(store: RegistryStore) -> int:
    version = Light("first").version(store, MODEL)
    gate = judge(store, MODEL, version, COMPARING, current_data_version="data-v1")
    promote(store, MODEL, version, gate=gate, actor="ann", reason="nightly")
    return version


def files_of(store: RegistryStore, version: int) -> Path:
    run = store.client.get_run(store.resolve(MODEL, version).run_id)
    return Path(run.info.artifact_uri.removeprefix("file://"))


@pytest.mark.parametrize("how", ["deleted", "torn", "all files", "run"])
def test_the_verdict_says_that_the_champions_evaluation_is_gone(store: RegistryStore, champion: int, how: str):
    file = files_of(store, champion) / "evaluation" / "evaluation.json"
    if how == "run":  # as `mlflow gc` does
        shutil.rmtree(files_of(store, champion))
        store.client._tracking_client.store._hard_delete_run(store.resolve(MODEL, champion).run_id)
    elif how == "all files":
        shutil.rmtree(files_of(store, champion))
    else:
        file.write_bytes(file.read_bytes()[:40]) if how == "torn" else file.unlink()
    candidate = Light("better", change={"BUSI": 0.02}).version(store, MODEL)
    gate = judge(store, MODEL, candidate, COMPARING, current_data_version="data-v1")
    assert [(rule.name, rule.subject) for rule in gate.failures] == [("champion_evaluation", "version 1")]
    assert "--against models:/segfoundry-demo/1" in gate.failures[0].explanation
    assert gate.champion_weights_sha256 == store.resolve(MODEL, champion).weights_sha256
    with pytest.raises(CheckFailed, match="champion's evaluation cannot be read"):
        promote(store, MODEL, candidate, gate=gate, actor="ann", reason="nightly")
    assert store.aliases(MODEL) == {"champion": champion, "challenger": candidate}

    answer = audit_model(store, MODEL, "champion")
    assert "evaluation/evaluation.json" in " ".join(answer["gone"])
    assert answer["evaluation"]["split"] is None
    assert answer["evaluation"]["digest"]
    assert (answer["data_version"], len(answer["datasets"])) == ("data-v1", 8)
    assert measured_on(store, store.resolve(MODEL, champion)) == {}


@pytest.mark.parametrize("loss", [0.0, 0.2])
def test_an_evaluation_against_the_champion_is_the_way_out(store: RegistryStore, champion: int, loss: float):
    shutil.rmtree(files_of(store, champion))
    weights = store.resolve(MODEL, champion).weights_sha256
    candidate = MeasuredTogether("again", champion=weights, loss=loss).version(store, MODEL)
    gate = judge(store, MODEL, candidate, COMPARING, current_data_version="data-v1")
    assert {rule.name for rule in gate.failures} == ({"max_loss_per_dataset", "no_significant_loss"} if loss else set())
    if not loss:
        promote(store, MODEL, candidate, gate=gate, actor="ann", reason="measured again")
        assert store.aliases(MODEL) == {"champion": candidate, "previous": champion}


def test_rules_that_compare_with_nobody_need_no_evaluation_of_the_champion(store: RegistryStore, champion: int):
    shutil.rmtree(files_of(store, champion))
    candidate = Light("better").version(store, MODEL)
    assert judge(store, MODEL, candidate, {"min_dice_text": 0.25}, current_data_version="data-v1").passed


def test_a_disk_that_is_not_mounted_is_a_service_and_no_verdict(store: RegistryStore, champion: int):
    root = store.artifact_root
    assert root is not None
    root.rename(root.with_name("elsewhere"))
    with pytest.raises(ServiceError) as told:
        store.evaluation_of(MODEL, champion)
    assert can_pass(told.value)
    root.with_name("elsewhere").rename(root)
    assert store.evaluation_of(MODEL, champion)


def test_storage_that_does_not_answer_is_tried_again(store: RegistryStore, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    client = store.client
    experiment = client.create_experiment("far", artifact_location=f"http://127.0.0.1:{free_port()}/files")
    run = client.create_run(experiment).info.run_id
    with pytest.raises(ServiceError) as told:
        store.read_json_artifact(run, "evaluation/evaluation.json")
    assert can_pass(told.value)
    assert not isinstance(told.value, ArtifactGone)
