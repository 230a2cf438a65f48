"""By hand and by DVC the same bytes come out; what did not change is not made again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from infra.dvc import DataRepo

pytestmark = pytest.mark.slow
PHANTOMS = ["Phantom_Nuclei", "Phantom_Lesion_US"]


def _environment() -> dict[str, str]:
    own = {
        name: value for name, value in os.environ.items() if not name.startswith(("SEGFOUNDRY_", "PREFECT_", "RAY_"))
    }
    # `python` of dvc.yaml is this environment's, as it is in a shell where .venv is active
    return {**own, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{own['PATH']}", "SEGFOUNDRY_OFFLINE": "1"}


def _segfoundry(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "pipelines", *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=_environment(), timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    value: dict[str, Any] = json.loads(done.stdout)
    return value


def _dvc(root: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(
        command, cwd=root, capture_output=True, text=True, env=_environment(), timeout=400, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ours") / "workspace"
    made = _segfoundry("data", "ingest", *PHANTOMS, "--workspace", str(root))
    assert made["made"] == [f"ingest@{name}" for name in PHANTOMS]
    assert made["data_version"] == "data-v1"
    for row in made["datasets"]:
        assert row["cases_found"] == row["cases_kept"] + row["cases_quarantined"]
        assert row["samples"] > 0
    return root


def test_dvc_repro_has_nothing_to_do_after_us_and_we_have_nothing_to_do_again(ours: Path) -> None:
    stages = [f"ingest@{name}" for name in PHANTOMS]
    assert "didn't change" in _dvc(ours, "repro", "--dry", *stages)
    assert not set(DataRepo(ours).changed()) & set(stages)
    again = _segfoundry("data", "ingest", "phantom_nuclei", "--workspace", str(ours))
    assert again["made"] == []
    assert again["data_version"] == "data-v1"


def test_dvc_repro_from_scratch_gives_the_same_lock_byte_for_byte(ours: Path, tmp_path: Path) -> None:
    root = tmp_path / "by-hand"
    _segfoundry("data", "fetch", *PHANTOMS, "--workspace", str(root))
    _dvc(root, "repro", "ingest")
    assert (root / "dvc.lock").read_bytes() == (ours / "dvc.lock").read_bytes()


def test_a_flipped_byte_that_dvc_does_not_see_is_found(ours: Path) -> None:
    assert _segfoundry("audit", "data", "--workspace", str(ours))["ok"]
    shard = ours / "data" / PHANTOMS[0] / "shard-00000.parquet"
    whole = shard.read_bytes()
    mode = shard.stat().st_mode
    shard.chmod(0o644)
    try:
        shard.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
        command = [sys.executable, "-m", "pipelines", "audit", "data", "--json", "--workspace", str(ours)]
        done = subprocess.run(command, capture_output=True, text=True, env=_environment(), timeout=100, check=False)
    finally:
        shard.write_bytes(whole)
        shard.chmod(mode)
    assert done.returncode == 1
    problems = {row["dataset"]: row["problems"] for row in json.loads(done.stdout)["datasets"]}
    assert "shard-00000.parquet: expected SHA-256" in problems[PHANTOMS[0]][0]
    assert problems[PHANTOMS[1]] == []


def test_diff_leakage_and_export_answer(ours: Path, tmp_path: Path) -> None:
    counts = _segfoundry("data", "diff", PHANTOMS[0], "data-v1", "--workspace", str(ours))["counts"]
    assert counts["same"] == 24
    assert counts["added"] == 0
    everything = _segfoundry("data", "diff", "data-v1", "data-v1", "--workspace", str(ours))["datasets"]
    assert {name: one["state"] for name, one in everything.items()} == dict.fromkeys(PHANTOMS, "unchanged")
    assert _segfoundry("data", "leakage", "--workspace", str(ours))["ok"]
    target = tmp_path / "coco"
    done = _segfoundry("data", "export", PHANTOMS[1], str(target), "--workspace", str(ours))
    assert len(json.loads((target / "annotations.json").read_text(encoding="utf-8"))["images"]) == done["samples"] > 0
    case = json.loads((target / "annotations.json").read_text(encoding="utf-8"))["images"][0]["sample_id"].split("/")[1]
    told = _segfoundry("data", "back", PHANTOMS[1], case, str(tmp_path / "back"), "--workspace", str(ours))
    assert told["voxels"]
    assert all((tmp_path / "back" / file).is_file() for file in told["files"].values())
