"""A workspace under git + DVC: the graph is DVC's, versions are tags, and a kill is healed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from infra import repository
from infra.dvc import DataRepo, prepare_workspace
from infra.errors import ServiceError, UsageError

PROJECT = Path(__file__).resolve().parents[2]
NAMES = ["aa", "bb"]
STAGES = [f"ingest@{name}" for name in NAMES]


def _params() -> dict[str, Any]:
    params: dict[str, Any] = yaml.safe_load((PROJECT / "params.yaml").read_text(encoding="utf-8"))
    return {**params, "datasets": NAMES}


@pytest.fixture
def repo(tmp_path: Path) -> DataRepo:
    root = tmp_path / "workspace"
    prepare_workspace(root, PROJECT, _params())
    for folder in ("sources", "recipes"):
        (root / folder).mkdir()
    for name in NAMES:
        (root / "sources" / f"{name}.jsonl").write_text("{}\n", encoding="utf-8")
    for name in [*NAMES, "train", "evaluate"]:
        (root / "recipes" / f"{name}.json").write_text("{}\n", encoding="utf-8")
    return DataRepo(root)


def _make(repo: DataRepo, stage: str, content: str = "1") -> None:
    folders = {"train": "models/candidate", "evaluate": "evaluation"}
    folder = repo.root / folders.get(stage, f"data/{stage.partition('@')[2]}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "file").unlink(missing_ok=True)  # a new file, as atomic writes make it: the old one is DVC's
    (folder / "file").write_text(content, encoding="utf-8")
    repo.commit_stage(stage)


def test_the_graph_has_ingest_before_train_before_evaluate(repo: DataRepo) -> None:
    assert repo.generations() == [STAGES, ["train"], ["evaluate"]]
    assert repo.plan() == [*STAGES, "train", "evaluate"]
    assert repo.needed(["train"]) == [*STAGES, "train"]
    with pytest.raises(UsageError, match="no stage nonsense"):
        repo.needed(["nonsense"])


def test_stages_get_clean_one_by_one_and_a_changed_source_makes_its_followers_stale(repo: DataRepo) -> None:
    assert repo.stale() == repo.plan()
    for stage in repo.plan():
        _make(repo, stage)
    assert repo.stale() == []
    assert repo.status_clean()
    (repo.root / "sources" / "bb.jsonl").write_text("{}\n{}\n", encoding="utf-8")
    assert repo.stale() == ["ingest@bb", "train", "evaluate"]


def test_a_data_version_is_made_once_a_change(repo: DataRepo) -> None:
    for stage in STAGES:
        _make(repo, stage)
    assert repo.data_version() is None
    first = repo.tag_data_version()
    assert (first.tag, first.created) == ("data-v1", True)
    assert repo.tag_data_version() == type(first)("data-v1", first.commit, first.digest, created=False)
    _make(repo, "train")
    repo.commit_state("model")
    assert repo.tag_data_version().tag == "data-v1"
    _make(repo, "ingest@aa", "2")
    known = repo.data_version()  # asking tags nothing
    assert known == type(first)("data-v1", first.commit, first.digest, created=False)
    assert known.digest != repo.data_digest()
    assert repo.tag_data_version().tag == "data-v2"
    assert repository.git(repo.root, "status", "--porcelain") == ""
    assert repo.read_bytes_at("data/aa/file", "data-v1") == b"1"
    assert repo.read_bytes_at("data/aa/file", "data-v2") == b"2"
    with pytest.raises(ServiceError, match="DVC cannot deliver"):
        repo.read_bytes_at("data/aa/none", "data-v1")


def test_the_workspace_holds_the_projects_graph_byte_for_byte(repo: DataRepo) -> None:
    assert (repo.root / "dvc.yaml").read_bytes() == (PROJECT / "dvc.yaml").read_bytes()


def test_preparing_again_changes_nothing(repo: DataRepo) -> None:
    before = {path: path.stat().st_mtime_ns for path in repo.root.rglob("*") if path.is_file()}
    prepare_workspace(repo.root, PROJECT, _params())
    after = {path: path.stat().st_mtime_ns for path in repo.root.rglob("*") if path.is_file()}
    changed = {path.relative_to(repo.root) for path in before if before[path] != after.get(path)}
    assert {path for path in changed if path.name != "config" or ".git" not in path.parts} == set()


def test_torn_files_and_stale_locks_of_a_kill_are_healed(repo: DataRepo) -> None:
    for stage in STAGES:
        _make(repo, stage)
    lock = repo.root / "dvc.lock"
    whole = lock.read_bytes()
    lock.write_bytes(whole[: len(whole) // 3] + b"\n  - : {")
    (repo.root / ".git" / "index.lock").touch()
    rwlock = repo.root / ".dvc" / "tmp" / "rwlock"
    rwlock.write_text('{"write": {', encoding="utf-8")
    prepare_workspace(repo.root, PROJECT)
    assert lock.read_bytes() == whole
    assert repo.stale() == ["train", "evaluate"]
    assert repo.tag_data_version().tag == "data-v1"


def test_a_lock_torn_between_two_lines_is_healed(repo: DataRepo) -> None:
    for stage in STAGES:
        _make(repo, stage)
    lock = repo.root / "dvc.lock"
    whole = lock.read_text(encoding="utf-8")
    torn = whole[: whole.index("  ingest@bb:") + len("  ingest@bb:\n")]
    assert isinstance(yaml.safe_load(torn)["stages"], dict)  # as YAML it is whole
    lock.write_text(torn, encoding="utf-8")
    prepare_workspace(repo.root, PROJECT)
    assert lock.read_text(encoding="utf-8") == whole


def test_temporary_files_of_a_kill_do_not_make_git_dirty(repo: DataRepo) -> None:
    repo.commit_state("all")
    (repo.root / ".mlflow.db.part-tmp").touch()
    (repo.root / ".evaluation.old-part-tmp").mkdir()
    (repo.root / ".evaluation.old-part-tmp" / "file").touch()
    assert repository.git(repo.root, "status", "--porcelain") == ""


def test_an_empty_lock_without_a_good_copy_means_from_the_start(repo: DataRepo) -> None:
    (repo.root / "dvc.lock").write_text("", encoding="utf-8")
    prepare_workspace(repo.root, PROJECT)
    assert repo.stale() == repo.plan()
