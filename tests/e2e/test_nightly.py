"""The nightly audit on a finished workspace: it holds; and each kind of damage is found and named."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines import nightly, release
from pipelines.workspace import MODEL_NAME, Workspace
from tests.e2e.conftest import Run, document, segfoundry

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_it_holds_and_finds_every_planted_damage(demo: Run, tmp_path: Path) -> None:
    place = Workspace(tmp_path / "workspace")
    shutil.copytree(demo.root, place.root, symlinks=True)
    where = ["--workspace", str(place.root)]
    said = document(segfoundry("flow", "run", "audit", *where))
    assert said["ok"], said

    dataset = demo.datasets[0]
    shard = next((place.data / dataset).glob("shard-*"))
    payload = bytearray(shard.read_bytes())
    payload[len(payload) // 2] ^= 1
    shard.unlink()  # DVC's cache has the same inode
    shard.write_bytes(payload)
    (place.data / dataset / "shard-99999.parquet").write_bytes(b"nobody's")
    (place.data / "Nobodys").mkdir()
    (place.data / dataset / ".manifest.parquet.abcd.part-tmp").write_bytes(b"half")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (place.temporary / f"{ended.pid}-left").mkdir(parents=True)
    store = release.open_store(place)
    experiment = store.client.get_run(store.versions(MODEL_NAME)[0].run_id).info.experiment_id
    run_id = store.client.create_run(experiment).info.run_id
    store.client.set_registered_model_alias(MODEL_NAME, "champion", "1")
    store.client.delete_registered_model_alias(MODEL_NAME, "champion")
    (place.reports / "77.html").write_text("whose?", encoding="utf-8")

    checks = nightly.audit(place)["checks"]
    assert [name for name, one in checks.items() if one["ok"]] == ["leakage"]
    assert any(shard.name in one and "SHA-256" in one for one in checks["shards"]["findings"])
    assert "the ledger says champion 1" in checks["ledger"]["findings"][0]
    files = "\n".join(checks["orphans in files"]["findings"])
    for part in ("shard-99999.parquet", "data/Nobodys", ".part-tmp", f"{ended.pid}-left"):
        assert part in files
    registry = "\n".join(checks["orphans in the registry"]["findings"])
    assert run_id in registry
    assert "77.html" in registry

    failed = segfoundry("flow", "run", "audit", *where)
    assert failed.returncode == 1, failed.stderr[-2000:]
    assert document(failed, code=1)["ok"] is False

    manifest = place.data / dataset / "manifest.parquet"
    payload = bytearray(manifest.read_bytes()[:-9])
    manifest.unlink()
    manifest.write_bytes(payload)
    failed = segfoundry("flow", "run", "audit", *where)
    assert failed.returncode == 1, failed.stderr[-2000:]
    checks = document(failed, code=1)["checks"]
    assert len(checks) == 5
    assert any(f"{dataset}: manifest.parquet: expected a file that" in one for one in checks["shards"]["findings"])
    assert run_id in "".join(checks["orphans in the registry"]["findings"])
