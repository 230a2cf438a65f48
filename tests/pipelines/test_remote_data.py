"""`train.data_root`: a copy of the workspace's data elsewhere, and of no other version."""

from __future__ import annotations

import json
from pathlib import Path

import fsspec
import pytest

from infra.errors import DataError
from pipelines.stages import _remote_data
from pipelines.workspace import Workspace


def test_a_copy_elsewhere_is_of_the_workspaces_own_version(tmp_path: Path) -> None:
    place = Workspace(tmp_path)
    (tmp_path / "data" / "aa").mkdir(parents=True)
    (tmp_path / "data" / "aa" / "dataset.json").write_text(json.dumps({"manifest_digest": "a" * 64}))
    store = fsspec.filesystem("memory")
    url = "memory://copies/data"
    assert _remote_data(place, "", ["aa"]) == ""
    with pytest.raises(DataError, match=r"memory://copies/data/aa/dataset\.json: expected a file"):
        _remote_data(place, url, ["aa"])
    store.pipe_file("/copies/data/aa/dataset.json", json.dumps({"manifest_digest": "b" * 64}).encode())
    with pytest.raises(DataError, match=r"expected the version of this workspace .manifest aaaa.*found bbbb"):
        _remote_data(place, url, ["aa"])
    store.pipe_file("/copies/data/aa/dataset.json", json.dumps({"manifest_digest": "a" * 64}).encode())
    assert _remote_data(place, f"{url}/", ["aa"]) == f"{url}/"
