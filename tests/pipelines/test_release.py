"""Small pieces of the wiring that need no service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from infra.errors import DataError, UsageError
from infra.settings import Settings
from infra.storage import write_json
from pipelines import events, plan
from pipelines.workspace import Workspace, pseudonym_key


def test_phantoms_stand_in_for_what_is_missing_and_say_for_what(tmp_path: Path) -> None:
    settings = Settings(mirror="", offline=True)
    told: list[dict[str, Any]] = []
    with events.listening(told.append):
        found = plan.locate_datasets(["BUSI"], tmp_path, settings, with_phantoms=True)
    assert {record["kind"] for record in found.values()} == {"phantom"}
    assert len(found) == 4
    assert all("stands in for BUSI" in record["reason"] for record in found.values())
    assert [event["dataset"] for event in told if event["kind"] == "missing"] == ["BUSI"]
    assert all(Path(record["path"]).is_dir() for record in found.values())


def test_without_phantoms_a_missing_dataset_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="BUSI: expected its folder, found none: no mirror is set"):
        plan.locate_datasets(["BUSI"], tmp_path, Settings(mirror="", offline=True), with_phantoms=False)


def test_a_root_that_is_gone_says_how_to_get_it_back(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    write_json(
        workspace.state / "roots.json", {"BUSI": {"kind": "mirror", "path": str(tmp_path / "gone"), "reason": ""}}
    )
    with pytest.raises(DataError, match="segfoundry data fetch BUSI"):
        workspace.root_of("BUSI")


def test_a_workspace_is_a_folder_that_was_prepared(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no workspace here"):
        Workspace.existing(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="found a file"):
        Workspace.prepare(tmp_path / "file")


def test_the_users_secret_replaces_the_public_one() -> None:
    assert pseudonym_key(Settings(pseudonym_key="secret")) == b"secret"
    assert pseudonym_key(Settings(pseudonym_key="")) != b""


def test_a_listener_hears_only_its_block() -> None:
    told: list[dict[str, Any]] = []
    with events.listening(told.append), events.phase("train"):
        events.emit("progress", step=1)
    events.emit("progress", step=2)
    assert [event["kind"] for event in told] == ["phase", "progress", "phase"]
