"""DVC's cache or remote is damaged: an older version is not delivered as if it were whole, and the file is named."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.dvc import DataRepo
from infra.errors import ServiceError
from tests.infra.test_dvc import STAGES, _make, repo  # noqa: F401

CONTENT = "what the first version holds " * 40
PATH = "data/aa/file"


def objects(store: Path) -> list[Path]:
    """Stored files that are no listing of a folder."""
    return [path for path in store.rglob("*") if path.is_file() and path.suffix != ".dir" and len(path.name) == 30]


def object_of(store: Path) -> Path:
    return next(path for path in objects(store) if path.read_bytes() == CONTENT.encode())


def flip(path: Path) -> None:
    payload = bytearray(path.read_bytes())
    payload[100] ^= 1
    path.chmod(0o644)
    path.write_bytes(payload)


def cut(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:50])


def dvc(root: Path, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=root, check=True, capture_output=True, timeout=120)


@pytest.fixture
def two_versions(repo: DataRepo) -> DataRepo:  # noqa: F811
    for content in (CONTENT, "the second version"):
        _make(repo, STAGES[0], content)
        _make(repo, STAGES[1], "beside it")
        repo.tag_data_version()
    assert repo.read_bytes_at(PATH, "data-v1") == CONTENT.encode()
    return repo


@pytest.mark.parametrize("damage", [flip, cut, Path.unlink], ids=["a bit", "cut", "gone"])
def test_a_damaged_cache_is_not_read_as_if_it_were_whole(
    two_versions: DataRepo, damage: Callable[[Path], None]
) -> None:
    damage(object_of(two_versions.root / ".dvc" / "cache"))
    with pytest.raises(ServiceError, match="data/aa/file at data-v1") as caught:
        two_versions.read_bytes_at(PATH, "data-v1")
    assert "dvc pull" in str(caught.value)
    assert two_versions.read_bytes_at(PATH, "data-v2") == b"the second version"  # the others are still there


def test_a_damaged_remote_is_not_read_as_if_it_were_whole(two_versions: DataRepo, tmp_path: Path) -> None:
    root, remote = two_versions.root, tmp_path / "remote"
    dvc(root, "remote", "add", "--local", "--default", "here", str(remote))
    dvc(root, "push", "--all-tags")
    object_of(root / ".dvc" / "cache").unlink()
    assert two_versions.read_bytes_at(PATH, "data-v1") == CONTENT.encode()  # the remote has it
    if (root / ".dvc" / "cache").exists():
        for path in objects(root / ".dvc" / "cache"):
            if path.read_bytes() == CONTENT.encode():
                path.unlink()
    flip(object_of(remote))
    with pytest.raises(ServiceError, match="data/aa/file at data-v1"):
        two_versions.read_bytes_at(PATH, "data-v1")
