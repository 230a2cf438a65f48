"""A release of a workspace's files: where only a person can go on, it ends with the reason in outcome and report."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from infra.storage import read_json, write_json
from pipelines import release
from pipelines.plan import project_params
from pipelines.workspace import MODEL_NAME, Workspace
from preprocessing.schema import read_dataset_file
from registry.promote import promote, rollback
from registry.store import RegistryStore
from tests.pipelines.test_gates import ONE, make
from tests.pipelines.test_own_card import segfoundry
from tests.preprocessing.test_leakage import picture
from tests.registry import samples

RULES = {"min_dice_text": 0.0, "min_gain_over_start": 0.05, "max_score_absent": 1.0, "max_loss_per_dataset": 0.05}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A workspace with one dataset, trained and evaluated as far as files go."""
    monkeypatch.syspath_prepend(str(samples.ENGINES))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    # the drawn pictures have empty masks
    monkeypatch.setattr(release, "example", lambda workspace: (samples.picture(), samples.PROMPTS))
    params = {**project_params(), "datasets": [ONE.name], "gate": RULES}
    workspace = Workspace.prepare(tmp_path / "workspace", params)
    make(workspace, replace(ONE), tmp_path / "raw", [picture(number) for number in range(4)])
    train(workspace, 100.0)
    return workspace


def train(place: Workspace, threshold: float, *, dice: float = 0.5, start: str = "") -> None:
    """A candidate, other weights for another threshold, and its evaluation; from weights `start` it gains little."""
    for folder in (place.candidate, place.evaluation):
        shutil.rmtree(folder, ignore_errors=True)
    samples.write_candidate(place.candidate, threshold=threshold, steps=24)
    digests = {ONE.name: read_dataset_file(place.data / ONE.name)["manifest_digest"]}
    record = read_json(place.candidate / "train.json")
    record["start_sha256"] = start or record["start_sha256"]
    write_json(place.candidate / "train.json", {**record, "datasets": digests})
    samples.write_evaluation(place.evaluation, place.candidate, pictures=0)
    figures = read_json(place.evaluation / "evaluation.json")
    entry = {**figures["datasets"]["Kvasir-SEG"], "dice_text_after": dice}
    figures |= {"datasets": {ONE.name: entry}, "manifest_digests": digests}
    if start:
        figures["summary"]["dice_text_before"] = figures["summary"]["dice_text_after"] - 0.001
    write_json(place.evaluation / "evaluation.json", figures)


def story(store: RegistryStore) -> list[tuple[str, int | None]]:
    return [(one.action, one.version) for one in store.ledger.entries() if one.action != "done"]


@pytest.mark.timeout(180)
def test_aliases_moved_by_hand_and_weights_taken_back_end_a_release_with_the_reason(place: Workspace) -> None:
    store = release.open_store(place)
    first = release.release(place)
    assert (first["model"]["alias"], first["waits"], first["changed"]) == ("champion", "", True)
    judged = Path(first["report"]).read_text(encoding="utf-8")

    # somebody takes the alias away; the same candidate again, and another one
    store.client.delete_registered_model_alias(MODEL_NAME, "champion")
    again = release.release(place)
    [rule] = again["gate"]["rules"]
    assert (again["gate"]["verdict"], rule["name"], again["changed"]) == ("block", "aliases", False)
    assert "expected the aliases that the ledger says (champion version 1" in rule["explanation"]
    assert Path(again["report"]).read_text(encoding="utf-8") == judged
    train(place, 90.0)
    second = release.release(place)
    assert (second["model"]["version"], second["model"]["alias"], second["gate"]["verdict"]) == (2, "", "block")
    assert "set outside segfoundry" in Path(second["report"]).read_text(encoding="utf-8")
    assert story(store) == [("promote", 1)]

    where = ("--workspace", str(place.root))
    segfoundry("model", "promote", "2", "--reason", "now", *where, code=2)
    segfoundry("model", "reconcile", "--restore", "--adopt", "--reason", "which?", *where, code=2)
    segfoundry("model", "reconcile", "--restore", *where, code=2)
    settled = segfoundry("model", "reconcile", "--restore", "--reason", "a slip", "--actor", "bob", *where)
    [done] = settled["reconciled"]
    assert (done["action"], done["actor"], done["reason"]) == ("done", "bob", "a slip")
    assert segfoundry("model", "reconcile", "--adopt", "--reason", "as it is", *where)["reconciled"] == []
    third = release.release(place)
    assert (third["model"]["alias"], third["changed"]) == ("champion", True)
    assert "set outside segfoundry" not in Path(third["report"]).read_text(encoding="utf-8")

    # taken back, then only evaluated again
    rollback(store, MODEL_NAME, actor="bob", reason="odd masks")
    train(place, 90.0, dice=0.6)
    waiting = release.release(place)
    assert (waiting["model"]["version"], waiting["model"]["alias"]) == (3, "challenger")
    assert "odd masks" in waiting["waits"]
    assert waiting["waits_for_approval"]
    rows = store.ledger.entries()
    assert not release.release(place)["changed"]
    assert store.ledger.entries() == rows
    assert story(store)[-2:] == [("rollback", 1), ("wait", 3)]
    gate = release.judge(place, store, 3)
    assert promote(store, MODEL_NAME, 3, gate=gate, actor="bob", reason="it was the scanner").champion == 3


@pytest.mark.timeout(180)
def test_a_training_from_the_champion_is_judged_against_it_and_not_by_its_gain(place: Workspace) -> None:
    store = release.open_store(place)
    release.release(place)
    train(place, 90.0, dice=0.501, start=store.resolve(MODEL_NAME, "champion").weights_sha256)
    second = release.release(place)
    [rule] = [one for one in second["gate"]["rules"] if one["name"] == "min_gain_over_start"]
    assert f"started from {MODEL_NAME}/1" in rule["explanation"]
    assert second["model"]["alias"] == "champion"
    train(place, 80.0, dice=0.3, start=store.resolve(MODEL_NAME, "champion").weights_sha256)
    assert [one["name"] for one in release.release(place)["gate"]["rules"] if not one["ok"]] == ["max_loss_per_dataset"]
