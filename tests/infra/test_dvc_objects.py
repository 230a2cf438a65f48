"""Single objects of DVC by MD5: found, fetched, verified and removed, in the cache, in a folder and in a bucket."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from infra.dvc import DataRepo, prepare_workspace
from infra.dvc_objects import CACHE, open_objects
from infra.errors import ServiceError
from tests.s3 import client, s3

PROJECT = Path(__file__).resolve().parents[2]
PIXELS = b"pixels" * 1000
MD5 = hashlib.md5(PIXELS, usedforsecurity=False).hexdigest()


def _dvc(root: Path, *words: str) -> None:
    done = subprocess.run([sys.executable, "-m", "dvc", *words], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _workspace(root: Path) -> str:
    """A workspace that has ingested one made-up dataset; returns what DVC calls its folder."""
    params = {**yaml.safe_load((PROJECT / "params.yaml").read_text(encoding="utf-8")), "datasets": ["aa"]}
    prepare_workspace(root, PROJECT, params)
    for folder in ("sources", "recipes", "data/aa"):
        (root / folder).mkdir(parents=True)
    (root / "sources" / "aa.jsonl").write_text("{}\n", encoding="utf-8")
    for name in ("aa", "train", "evaluate"):
        (root / "recipes" / f"{name}.json").write_text("{}\n", encoding="utf-8")
    (root / "data" / "aa" / "shard").write_bytes(PIXELS)
    repo = DataRepo(root)
    repo.commit_stage("ingest@aa")
    return str(repo.lock()["ingest@aa"]["outs"][0]["md5"])


@pytest.mark.slow
def test_an_object_is_found_fetched_and_removed_wherever_it_is(tmp_path: Path) -> None:
    root = tmp_path / "workspace"
    folder = _workspace(root)
    with s3("store"):
        _dvc(root, "remote", "add", "bucket", "s3://store/dvc")
        _dvc(root, "remote", "add", "disk", str(tmp_path / "disk"))
        for remote in ("bucket", "disk"):
            _dvc(root, "push", "--remote", remote)
        with open_objects(root, tmp_path / "state") as objects:
            assert objects.listing(folder) == {"shard": MD5}
            assert objects.where([MD5, "0" * 32]) == {MD5: [CACHE, "bucket", "disk"], "0" * 32: []}
            objects.remove(MD5, CACHE)
            assert objects.fetched(MD5).read_bytes() == PIXELS  # from a remote
            for place in (CACHE, "bucket", "disk"):
                objects.remove(MD5, place)
                objects.remove(MD5, place)  # again is no error
            assert objects.where([MD5]) == {MD5: []}
            assert not [path for path in client().find("store/dvc") if path.endswith(MD5[2:])]
            with pytest.raises(
                ServiceError, match=r"the shard: expected object .* in the cache, the remote bucket, the"
            ):
                objects.fetched(MD5, "the shard")


def test_a_flipped_byte_is_found_before_an_answer_is_made_of_it(tmp_path: Path) -> None:
    root = tmp_path / "workspace"
    _workspace(root)
    with open_objects(root, tmp_path / "state") as objects:
        path = objects.fetched(MD5)
        os.chmod(path, 0o644)
        path.write_bytes(b"P" + PIXELS[1:])
        with pytest.raises(ServiceError, match=f"expected the MD5 {MD5}"):
            objects.fetched(MD5)
    with open_objects(root, tmp_path / "state") as objects, pytest.raises(ServiceError, match="damaged"):
        objects.fetched(MD5)  # what was remembered as sound is another file now
