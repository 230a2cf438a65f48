"""A DVC remote in a bucket: what one workspace pushes, another one pulls, by the commands of docs/runs.md."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from infra import repository
from infra.dvc import DataRepo, prepare_workspace
from tests.s3 import SECRET, client, s3

PROJECT = Path(__file__).resolve().parents[2]


def _dvc(root: Path, *words: str) -> None:
    done = subprocess.run([sys.executable, "-m", "dvc", *words], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_another_workspace_pulls_what_one_pushed(tmp_path: Path) -> None:
    params = {**yaml.safe_load((PROJECT / "params.yaml").read_text(encoding="utf-8")), "datasets": ["aa"]}
    first = tmp_path / "first"
    prepare_workspace(first, PROJECT, params)
    for folder in ("sources", "recipes", "data/aa"):
        (first / folder).mkdir(parents=True)
    (first / "sources" / "aa.jsonl").write_text("{}\n", encoding="utf-8")
    for name in ("aa", "train", "evaluate"):
        (first / "recipes" / f"{name}.json").write_text("{}\n", encoding="utf-8")
    (first / "data" / "aa" / "shard").write_bytes(b"pixels" * 1000)
    repo = DataRepo(first)
    repo.commit_stage("ingest@aa")
    with s3("store"):
        _dvc(first, "remote", "add", "--default", "store", "s3://store/dvc")
        _dvc(first, "push")
        assert client().find("store/dvc")
        repo.tag_data_version()
        config = (first / ".dvc" / "config").read_text(encoding="utf-8")
        assert "s3://store/dvc" in config
        assert SECRET not in config

        second = tmp_path / "second"
        subprocess.run(["git", "clone", "--quiet", str(first), str(second)], check=True)
        prepare_workspace(second, PROJECT)
        assert repository.data_tags(second) == ["data-v1"]
        _dvc(second, "pull", "ingest@aa")
        assert (second / "data" / "aa" / "shard").read_bytes() == b"pixels" * 1000
        assert DataRepo(second).read_bytes_at("data/aa/shard", "data-v1") == b"pixels" * 1000
