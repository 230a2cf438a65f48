"""The flow around its stages: what is tried again, what is kept after a failure, what a kill leaves in the history."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra import repository
from infra.dvc import prepare_workspace
from infra.errors import DataError, ServiceError
from infra.processes import RunLock
from pipelines import demo, events, orchestration, plan, release, stages
from pipelines.workspace import PROJECT, Workspace

NAMES = ["aa", "bb"]
FOLDERS = {"train": "models/candidate", "evaluate": "evaluation"}


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    root = tmp_path / "workspace"
    params = yaml.safe_load((PROJECT / "params.yaml").read_text(encoding="utf-8"))
    prepare_workspace(root, PROJECT, {**params, "datasets": NAMES})
    for folder in ("sources", "recipes"):
        (root / folder).mkdir()
    for name in NAMES:
        (root / "sources" / f"{name}.jsonl").write_text("{}\n", encoding="utf-8")
    for name in [*NAMES, "train", "evaluate"]:
        (root / "recipes" / f"{name}.json").write_text("{}\n", encoding="utf-8")
    return Workspace(root)


def _make(place: Workspace, stage: str) -> None:
    folder = place.root / FOLDERS.get(stage, f"data/{stage.partition('@')[2]}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "file").unlink(missing_ok=True)
    (folder / "file").write_text(stage, encoding="utf-8")


@pytest.fixture
def prefect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        monkeypatch.delenv(name)
    kept = dict(os.environ)
    orchestration.prepare(tmp_path / "state")
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield
    os.environ.clear()
    os.environ.update(kept)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_flow_keeps_what_is_good_tries_again_what_may_heal_and_closes_dead_runs(
    place: Workspace, prefect: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.client.orchestration import get_client
    from prefect.states import Running

    from pipelines.flows import parts, run
    from pipelines.flows.retrain import retrain

    tries: list[str] = []
    bad_input = True

    def run_stage(workspace: Workspace, name: str) -> dict[str, Any]:
        tries.append(name)
        if name == "ingest@aa" and bad_input:
            msg = "bad input stays bad"
            raise DataError(msg)
        if name == "ingest@bb" and tries.count(name) == 1:
            msg = "a service that comes back"
            raise ServiceError(msg)
        _make(workspace, name)
        return {}

    # what the stages make is not what this is about; the server, the flow, DVC and git are real
    monkeypatch.setattr(stages, "run_stage", run_stage)
    monkeypatch.setattr(parts, "ray_session", lambda state: contextlib.nullcontext())
    monkeypatch.setattr(parts.gates, "refuse_leakage", lambda place, names: None)
    monkeypatch.setattr(parts.quality, "refuse", lambda place, names: None)
    monkeypatch.setattr(parts.pages, "write_pages", lambda place: None)
    monkeypatch.setattr(parts.artifacts, "released", lambda place, outcome: None)
    monkeypatch.setattr(release, "release", lambda workspace: {"changed": True})
    demo.looked.add(str(place.root))
    with get_client(sync_client=True) as client:
        dead, elsewhere = (
            client.create_flow_run(retrain, parameters={"workspace": where}, state=Running())
            for where in (str(place.root), "another")
        )

        with pytest.raises(DataError, match="bad input stays bad"):
            run.in_this_process(place, "retrain")
        assert (tries.count("ingest@aa"), tries.count("ingest@bb")) == (1, 2)
        assert set(place.repo.lock()) == {"ingest@bb"}
        # without the run lock it may be one that begins just now in another process
        assert client.read_flow_run(dead.id).state_name == "Running"

        bad_input = False
        with RunLock(place.state, "test"):  # as `segfoundry demo` does
            assert run.in_this_process(place, "retrain")["stages_run"] == ["ingest@aa", "train", "evaluate"]
        assert client.read_flow_run(dead.id).state_name == "Crashed"
        assert client.read_flow_run(elsewhere.id).state_name == "Running"
    assert place.repo.stale() == []
    assert repository.git(place.root, "status", "--porcelain") == ""
    assert not list((place.state / "flow-runs").glob("*.json"))


def test_git_is_clean_also_where_a_kill_came_before_the_last_commit(
    place: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stage in place.repo.plan():
        _make(place, stage)
        place.repo.commit_stage(stage)
    assert repository.git(place.root, "status", "--porcelain") != ""
    monkeypatch.setattr(release, "release", lambda workspace: {"changed": False})
    said = demo.make(place, 0.0)
    assert (said["changed"], said["stages_run"]) == (False, [])
    assert repository.git(place.root, "status", "--porcelain") == ""
    assert repository.data_tags(place.root) == ["data-v1"]


def test_what_is_no_longer_listed_goes_committed_or_not(place: Workspace) -> None:
    for name in ("aa", "bb", "by_hand"):
        _make(place, f"ingest@{name}")
    place.repo.commit_stage("ingest@aa")
    assert plan.forget_unlisted(place, ["bb"]) == ["aa"]
    assert plan.forget_unlisted(place, []) == ["bb"]  # a recipe, but never committed
    assert [path.name for path in place.data.iterdir()] == ["by_hand"]
    assert sorted(path.stem for path in (place.root / "recipes").iterdir()) == ["evaluate", "train"]
    assert list((place.root / "sources").iterdir()) == []


def test_cleaning_up_takes_what_a_killed_run_left_and_nothing_of_a_live_one(place: Workspace) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for left in (place.root / ".evaluation.old-part-tmp", place.temporary / f"{ended.pid}-left"):
        left.mkdir(parents=True)
        (left / "file").touch()
    at_work = place.temporary / f"{os.getpid()}-work"
    at_work.mkdir()
    with events.listening(lambda event: None):
        assert demo.clean_up(place) == []
    assert not (place.root / ".evaluation.old-part-tmp").exists()
    assert list(place.temporary.iterdir()) == [at_work]
