"""Judging at a desk while a run ingests: only who holds the run lock makes data versions."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from infra import repository
from infra.dvc import prepare_workspace
from infra.errors import UsageError
from infra.processes import RunLock
from pipelines import manual, release
from pipelines.cli import run
from pipelines.workspace import MODEL_NAME, PROJECT, Workspace
from registry.gate import DATA_RULE, RuleResult
from registry.store import RegistryStore
from tests.registry.light import Light

NAMES = ["aa", "bb"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A workspace whose data version 1 has been made, and a model of it."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    root = tmp_path / "workspace"
    params = yaml.safe_load((PROJECT / "params.yaml").read_text(encoding="utf-8"))
    prepare_workspace(root, PROJECT, {**params, "datasets": NAMES})
    for folder, names, ending in (("sources", NAMES, "jsonl"), ("recipes", [*NAMES, "train", "evaluate"], "json")):
        (root / folder).mkdir()
        for name in names:
            (root / folder / f"{name}.{ending}").write_text("{}\n", encoding="utf-8")
    place = Workspace(root)
    for name in NAMES:
        ingest(place, name, "1")
    place.repo.tag_data_version()
    Light("first").version(store_of(place), MODEL_NAME)
    return place


def store_of(place: Workspace) -> RegistryStore:
    return release.open_store(place)


def ingest(place: Workspace, name: str, content: str) -> None:
    """As a run does it, one dataset after the other."""
    (place.data / name).mkdir(parents=True, exist_ok=True)
    (place.data / name / "file").unlink(missing_ok=True)
    (place.data / name / "file").write_text(content, encoding="utf-8")
    place.repo.commit_stage(f"ingest@{name}")


def state(place: Workspace) -> tuple[list[str], str, str]:
    git = (repository.git(place.root, *words) for words in (("rev-parse", "HEAD"), ("status", "--porcelain")))
    return repository.data_tags(place.root), next(git), next(git)


def data_rule(place: Workspace) -> RuleResult:
    report = release.judge(place, store_of(place), 1)
    return next(rule for rule in report.rules if rule.name == DATA_RULE)


def test_half_ingested_data_is_not_tagged_by_who_asks_for_a_verdict(place: Workspace) -> None:
    assert data_rule(place).ok
    with RunLock(place.state, "flow retrain"):
        ingest(place, "aa", "2")
        before = state(place)
        rule = data_rule(place)
        assert not rule.ok
        assert "changed since data-v1 and is in no version" in rule.explanation
        assert "segfoundry data ingest" in rule.explanation
        here = ["--workspace", str(place.root)]
        assert run(["model", "gate", "1", *here]) == 1
        assert run(["model", "promote", "1", "--approve", "ann", "--reason", "now", *here]) == 1
        with pytest.raises(UsageError, match="changed since data-v1"):
            release._data_version(place)
        assert state(place) == before
        ingest(place, "bb", "2")
        place.repo.tag_data_version()
    assert repository.data_tags(place.root) == ["data-v1", "data-v2"]
    assert "Trained on data-v1; the current data version is data-v2" in data_rule(place).explanation


def test_data_that_a_killed_run_left_untagged_is_tagged_by_the_next_ingest(place: Workspace) -> None:
    ingest(place, "aa", "2")
    ingest(place, "bb", "2")
    assert manual.make(place, [f"ingest@{name}" for name in NAMES]) == []
    assert repository.data_tags(place.root) == ["data-v1", "data-v2"]
    assert manual.make(place, [f"ingest@{name}" for name in NAMES]) == []
    assert repository.data_tags(place.root) == ["data-v1", "data-v2"]
