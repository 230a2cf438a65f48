"""A case is withdrawn: the next build has no trace of it, the models that saw it are marked, the ledger remembers."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from infra import repository
from infra.storage import read_json
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

    missing = segfoundry("withdraw", "--case", "nobody", "--reason", "test", *where)
    assert missing.returncode == 1
    assert not (root / "withdrawn.jsonl").exists()

    said = document(segfoundry("withdraw", "--case", key, "--reason", "consent withdrawn", "--actor", "ann", *where))
    assert said["changed"] is True
    assert said["cases"] == [key]
    assert said["models"] == [{"version": 1, "aliases": ["champion"], "uses": ["trained on"]}]
    assert [(one["data_version"], one["shards"]) for one in said["purge"]] == [
        ("data-v1", [f"data/{dataset}/{row['shard']}"])
    ]
    listed = read_json(root / "recipes" / f"{dataset}.json")["withdrawn"]
    assert row["case_id"] in listed
    assert [one.partition(":")[0] for one in listed if one != row["case_id"]] == ["pixels"]
    assert repository.git(root, "status", "--porcelain") == ""
    again = document(segfoundry("withdraw", "--case", key, "--reason", "twice", *where))
    assert again["changed"] is False
    ledger = document(segfoundry("audit", "ledger", *where))
    assert ledger["ok"]

    document(segfoundry("data", "ingest", dataset, *where))
    for path in (root / "data" / dataset).glob("shard-*.parquet"):
        assert row["case_id"] not in pq.read_table(path, columns=["case_id"])["case_id"].to_pylist()
    refused = pq.read_table(root / "data" / dataset / "quarantine.parquet").to_pylist()
    assert [one["reason"] for one in refused if one["case_id"] == row["case_id"]] == ["withdrawn"]
    found = document(segfoundry("audit", "case", key, *where))
    assert "data-v1" in {place["data_version"] for place in found["places"]}
    newest = repository.data_tags(root)[-1]
    assert newest not in {place["data_version"] for place in found["places"]}
