"""A patient is withdrawn: no build has a trace of it, the models that saw it are marked, a retraining is asked for.

On real volumes (MSD Hippocampus) where there is a mirror, else on the phantoms of the shared demo.
"""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from infra import repository
from infra.storage import read_json
from pipelines.audits import local
from pipelines.release import open_store
from pipelines.withdraw import withdraw
from pipelines.workspace import Workspace
from preprocessing.schema import read_manifest
from tests.e2e.conftest import Run, document, segfoundry

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_a_withdrawn_case_leaves_the_live_shards_and_marks_the_models(demo: Run, tmp_path: Path) -> None:
    root = tmp_path / "workspace"
    shutil.copytree(demo.root, root, symlinks=True)
    where = ["--workspace", str(root)]
    dataset = demo.datasets[0]
    row = next(row for row in read_manifest(root / "data" / dataset).to_pylist() if row["split"] == "train")
    key = f"{dataset}/{row['case_id']}"

    missing = segfoundry("withdraw", "--case", f"{key}x", "--reason", "test", *where)
    assert missing.returncode == 2
    assert key in missing.stderr.replace("\n", " ")  # as a near name
    assert "Traceback" not in missing.stderr
    assert not (root / "withdrawn.jsonl").exists()
    sheet = tmp_path / "cases.csv"
    model = document(segfoundry("audit", "model", "segfoundry-sam3@champion", "--csv", str(sheet), *where))
    assert {one["what"] for one in model["rebuild"]["checks"] if one["ok"] is False} <= {"code commit"}  # if not clean
    state = next(one for one in model["rebuild"]["checks"] if one["what"] == "parameters and recipe")
    assert state["ok"], state
    with sheet.open(encoding="utf-8", newline="") as lines:
        held = {(one["dataset"], one["case_id"], one["split"]) for one in csv.DictReader(lines)}
    for name in demo.datasets:
        rows = read_manifest(root / "data" / name).to_pylist()
        assert {(name, one["case_id"], one["split"]) for one in rows} == {one for one in held if one[0] == name}

    said = document(segfoundry("withdraw", "--case", key, "--reason", "consent withdrawn", "--actor", "ann", *where))
    assert said["changed"] is True
    assert said["cases"] == [key]
    assert [(one["version"], one["aliases"], one["uses"]) for one in said["models"]] == [
        (1, ["champion"], ["trained on"])
    ]
    assert [(one["data_version"], one["shards"]) for one in said["purge"]] == [
        ("data-v1", [f"data/{dataset}/{row['shard']}"])
    ]
    assert said["data_version"] == "data-v2"
    assert said["search"]["ok"]
    asked = [json.loads(line) for line in (root / "retrain_requests.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(one["key"], one["cases"], one["data_version"]) for one in asked] == [(key, [key], "data-v1")]
    listed = read_json(root / "recipes" / f"{dataset}.json")["withdrawn"]
    assert row["case_id"] in listed
    assert [one.partition(":")[0] for one in listed if one != row["case_id"]] == ["pixels"]
    assert repository.git(root, "status", "--porcelain") == ""
    ledger = document(segfoundry("audit", "ledger", *where))
    assert ledger["ok"]
    assert [one["action"] for one in ledger["rows"]][-1] == "withdraw"

    for path in (root / "data" / dataset).glob("shard-*.parquet"):
        assert row["case_id"] not in pq.read_table(path, columns=["case_id"])["case_id"].to_pylist()
    refused = pq.read_table(root / "data" / dataset / "quarantine.parquet").to_pylist()
    assert [one["reason"] for one in refused if one["case_id"] == row["case_id"]] == ["withdrawn"]
    assert document(segfoundry("audit", "withdrawn", "--shards", *where))["ok"]
    found = document(segfoundry("audit", "case", key, *where))
    assert {place["data_version"] for place in found["places"]} == {"data-v1"}
    assert not found["live"]

    done = document(segfoundry("audit", "purge", key, "--yes", *where))
    assert done["removed"]["cache"] == len(done["objects"]) > 0
    assert [one["what"] for one in done["local"]] == [local.DECODED] * done[
        "removed_local"
    ]  # what training had decoded
    assert done["local"]
    model = document(segfoundry("audit", "model", "champion", *where))
    assert not model["rebuild"]["possible"]
    assert "must not" in model["rebuild"]["verdict"]
    assert [one["case_id"] for one in model["withdrawn_cases"]] == [row["case_id"]]


def test_a_set_whose_every_case_is_withdrawn_stops_no_retraining(demo: Run, tmp_path: Path) -> None:
    root = tmp_path / "workspace"
    shutil.copytree(demo.root, root, symlinks=True)
    where, place = ["--workspace", str(root)], Workspace(root)
    gone, *left = demo.datasets
    groups = sorted(set(read_manifest(root / "data" / gone)["group_id"].to_pylist()))
    for group in groups:
        withdraw(
            place, open_store(place), f"{gone}/{group}", reason="the ward left the study", actor="ann", build=False
        )
    said = document(segfoundry("flow", "run", "retrain", *where))
    assert said["data_version"] == "data-v2"
    assert {"train", "evaluate"} <= set(said["stages_run"])
    samples = {one["name"]: one["samples"] for one in said["datasets"]}
    assert samples.pop(gone) == 0
    assert all(samples.values())
    assert sorted(read_json(root / "models" / "candidate" / "train.json")["datasets"]) == sorted(left)
    assert sorted(read_json(root / "evaluation" / "evaluation.json")["datasets"]) == sorted(left)
    assert said["model"]["version"] == 2
    assert document(segfoundry("flow", "run", "audit", *where))["ok"]
    assert document(segfoundry("flow", "run", "retrain", "--dry-run", *where))["requests"] == []
    # another look at the same data by a verb of its own: the empty set is no obstacle there either
    measured = document(segfoundry("evaluate", "--model", "models:/segfoundry-sam3/2", "--data", "data-v2", *where))
    assert measured["evaluate"]["datasets"][gone]["samples"] == 0


def test_the_patient_of_a_real_volume_is_gone_from_every_slice(mirror: Path, tmp_path: Path) -> None:
    """Dozens of slices of one hippocampus: none stays, by id, by content or by pixels; other patients do."""
    few = tmp_path / "few" / "MSD_Hippocampus_udacity"
    source = mirror / "MSD_Hippocampus_udacity"
    for folder in ("images", "labels"):
        files = sorted((source / "TrainingSet" / folder).glob("hippocampus_*.nii.gz"))[:6]
        (few / "TrainingSet" / folder).mkdir(parents=True)
        for file in files:
            shutil.copy(file, few / "TrainingSet" / folder / file.name)
    root = tmp_path / "workspace"
    where = ["--workspace", str(root)]
    document(segfoundry("data", "ingest", "MSD_Hippocampus_udacity", "--root", str(few), *where))
    before = read_manifest(root / "data/MSD_Hippocampus_udacity").to_pylist()
    row = before[0]
    said = document(segfoundry("withdraw", "--case", row["group_id"], "--reason", "consent withdrawn", *where))
    gone = {one["sample_id"] for one in before if one["group_id"] == row["group_id"]}
    assert len(gone) > 1
    left = {one["sample_id"] for one in read_manifest(root / "data/MSD_Hippocampus_udacity").to_pylist()}
    assert left == {one["sample_id"] for one in before} - gone
    assert said["search"]["ok"]
    assert said["retrain"] is None  # no model has seen anyone
    assert document(segfoundry("audit", "withdrawn", "--shards", *where))["ok"]
    changed = document(segfoundry("audit", "data", "data-v1", "data-v2", *where))
    assert [one["counts"] for one in changed["datasets"]] == [{"withdrawn": 1}]
