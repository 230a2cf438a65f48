"""Every version carries what made it, and each digest is that of the file it speaks of."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from infra.errors import DataError
from infra.storage import digest_of, read_json, write_json
from registry.lineage import build_lineage, describe_dataset, split_digest
from registry.store import RegistryStore
from tests.registry import samples
from tests.registry.conftest import MODEL, Made

EXTERNAL = "CHASE_DB1"
PARAMS = {"train": {"seed": 7, "data_root": "s3://key:hunter2@bucket/data"}, "gate": {"min_dice_text": 0.25}}


def write_versions(root: Path) -> Path:
    """`data/` of a workspace: the tables that lineage reads."""
    for one in samples.datasets():
        folder = root / one["dataset"]
        folder.mkdir(parents=True)
        write_json(folder / "dataset.json", one)
        write_json(folder / "concepts.json", {"vessel": {"prompts": ["vessel", one["dataset"]], "parent": None}})
        rows = [{"sample_id": f"{case}-{index}", "group_id": f"g{case}", "split": ("train", "val", "test")[case % 3]}
                for case in range(6) for index in range(4)]  # fmt: skip
        pq.write_table(pa.Table.from_pylist(rows), folder / "manifest.parquet")
    return root


@pytest.fixture
def made(tmp_path: Path) -> Made:
    candidate = samples.write_candidate(tmp_path / "candidate")
    train = read_json(candidate / "train.json")
    train["datasets"].pop(EXTERNAL)  # measured on it, never trained on it
    train["start"] = {"source": "sam3.safetensors", "sha256": "ab" * 32}
    write_json(candidate / "train.json", train)
    evaluation = samples.write_evaluation(tmp_path / "evaluation", candidate)
    data = write_versions(tmp_path / "data")
    lineage = build_lineage(
        candidate,
        evaluation,
        [describe_dataset(folder) for folder in sorted(data.iterdir())],
        data_version="data-v4",
        data_commit="c0ffee" * 6,
        code_commit="0badf00d" * 5,
        params=PARAMS,
        parent=f"{MODEL}/2",
    )
    return Made(candidate, evaluation, lineage)


def test_a_version_carries_all_of_its_lineage_and_each_part_equals_the_workspaces_file(
    store: RegistryStore, made: Made, tmp_path: Path
):
    registered = made.register(store)
    [version] = store.versions(MODEL)
    tags = {name.removeprefix("segfoundry."): value for name, value in version.tags.items()}
    data, train = tmp_path / "data", read_json(made.candidate / "train.json")
    assert (tags["data_version"], tags["data_commit"], tags["code_commit"]) == (
        "data-v4", "c0ffee" * 6, "0badf00d" * 5)  # fmt: skip
    trained = sorted(train["datasets"])
    groups = [[f"g{case}", ("train", "val", "test")[case % 3]] for case in range(6)]
    concepts = {}
    for name in trained:
        assert tags[f"manifest.{name}"] == read_json(data / name / "dataset.json")["manifest_digest"]
        assert tags[f"split.{name}"] == digest_of(sorted(groups))
        concepts[name] = hashlib.sha256((data / name / "concepts.json").read_bytes()).hexdigest()
    assert tags["split_digest"] == digest_of(dict.fromkeys(trained, digest_of(sorted(groups))))
    assert tags["ontology_digest"] == digest_of(concepts)
    assert tags[f"external.{EXTERNAL}"] == read_json(data / EXTERNAL / "dataset.json")["manifest_digest"]
    assert f"manifest.{EXTERNAL}" not in tags
    assert tags["evaluation_digest"] == digest_of(read_json(made.evaluation / "evaluation.json"))
    weights = hashlib.sha256((made.candidate / "model.safetensors").read_bytes()).hexdigest()
    start = hashlib.sha256((made.candidate / "start.safetensors").read_bytes()).hexdigest()
    assert (tags["weights_sha256"], tags["start_sha256"], tags["parent"]) == (weights, start, f"{MODEL}/2")
    assert tags["strictest_licence"] == "research and education only"

    kept: dict[str, Any] = store.read_json_artifact(registered.run_id, "parameters.json")
    assert tags["parameters_digest"] == digest_of(kept)
    assert kept["train"]["recipe"] == train["recipe"]
    assert kept["params"]["gate"] == PARAMS["gate"]
    assert "hunter2" not in json.dumps(kept)
    # the model's own folder says the same, without any server
    [described] = (tmp_path / "mlartifacts").rglob("MLmodel")
    assert yaml.safe_load(described.read_text())["metadata"]["segfoundry"] == {
        name: value for name, value in version.tags.items() if not name.endswith(("registration", "complete"))
    }


def test_every_dataset_is_an_input_of_the_run_with_what_it_was_used_for(store: RegistryStore, made: Made):
    registered = made.register(store)
    inputs = store.client.get_run(registered.run_id).inputs.dataset_inputs
    used = {one.dataset.name: {tag.key: tag.value for tag in one.tags}["mlflow.data.context"] for one in inputs}
    assert used == dict.fromkeys(made.lineage["manifest_digests"], "training") | {EXTERNAL: "evaluation"}
    [busi] = [one.dataset for one in inputs if one.dataset.name == "BUSI"]
    source, profile = json.loads(busi.source), json.loads(busi.profile)
    assert source["split_digest"] == made.lineage["split_digests"]["BUSI"]
    assert source["ontology_digest"] == made.lineage["ontology_digests"]["BUSI"]
    assert profile["licence"] == "CC0-1.0"
    assert profile["counts"]["cases_kept"] == 52


def test_the_split_digest_changes_where_a_group_moves_and_nowhere_else(tmp_path: Path):
    def digest(groups: list[tuple[str, str]]) -> str:
        table = pa.table({"group_id": [g for g, _ in groups], "split": [s for _, s in groups]})
        pq.write_table(table, tmp_path / "manifest.parquet")
        return split_digest(tmp_path / "manifest.parquet")

    first = digest([("a", "train"), ("b", "test"), ("b", "test")])
    assert digest([("b", "test"), ("a", "train"), ("a", "train")]) == first  # order and slices do not matter
    assert digest([("a", "train"), ("b", "val")]) != first
    assert digest([("a", "train"), ("b", "test"), ("c", "train")]) != first


def test_another_version_of_a_dataset_than_was_trained_on_is_refused(made: Made, tmp_path: Path):
    versions = [describe_dataset(folder) for folder in sorted((tmp_path / "data").iterdir())]
    for one in versions:
        if one["dataset"] == "BUSI":
            one["manifest_digest"] = "0" * 64
    with pytest.raises(DataError, match=r"BUSI: expected manifest .* found 000000000000"):
        build_lineage(made.candidate, made.evaluation, versions, data_version="v", data_commit="c", code_commit="c")
