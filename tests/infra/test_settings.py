"""Machine facts come from SEGFOUNDRY_* variables; a bad one is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.errors import UsageError
from infra.settings import load_settings, resolve_workspace, tracking_uri


def test_a_relative_mirror_means_from_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEGFOUNDRY_MIRROR", "data")
    assert load_settings().mirror == str(tmp_path / "data")
    monkeypatch.setenv("SEGFOUNDRY_MIRROR", "s3://bucket/data")
    assert load_settings().mirror == "s3://bucket/data"


def test_a_bad_value_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGFOUNDRY_NUM_CPUS", "two")
    with pytest.raises(UsageError, match=r"SEGFOUNDRY_NUM_CPUS.*'two'"):
        load_settings()


def test_one_cpu_still_gives_ray_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGFOUNDRY_NUM_CPUS", "1")
    assert load_settings().cpus == 2


def test_workspace_and_tracking_uri(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SEGFOUNDRY_WORKSPACE", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert resolve_workspace(None, "demo") == tmp_path / "workspaces" / "demo"
    assert tracking_uri(tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("SEGFOUNDRY_WORKSPACE", "elsewhere")
    assert resolve_workspace(None, "demo") == tmp_path / "elsewhere"
    assert resolve_workspace(tmp_path / "given", "demo") == tmp_path / "given"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking")
    assert tracking_uri(tmp_path) == "http://tracking"
