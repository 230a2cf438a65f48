from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra.errors import ServiceError
from preprocessing.schema import MANIFEST_SCHEMA
from registry.audit import Recorded, audit_case, rows_of_case
from registry.lineage import licence_strictness, strictest_licence
from registry.report import lineage_rows
from registry.store import ModelVersion
from tests.registry import samples


def manifest(*cases: tuple[str, str, str]) -> Recorded:
    """A manifest of two slices a case, as a file in memory; its digest is no concern of the search."""
    rows = []
    for case, group, split in cases:
        for at in range(2):
            rows.append(
                {
                    "sample_id": f"d/{case}/z{at}", "dataset": "d", "case_id": case, "group_id": group,
                    "modality": "MRI", "split": split, "axis": "z", "slice_index": at, "height": 8, "width": 8,
                    "spacing_mm_yx": [1.0, 1.0], "image_format": "png", "objects": [], "absent": [], "source": [],
                    "content_sha256": f"{case}{at}", "recipe_sha256": "r", "shard": f"shard-0000{at}.parquet", "row": 0,
                }
            )  # fmt: skip
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=MANIFEST_SCHEMA), sink)
    file = sink.getvalue()
    return Recorded(f"digest of {cases}", lambda names: rows_of_case(pa.BufferReader(file), names))


def test_a_case_is_found_in_every_version_split_shard_and_model_that_holds_it():
    old = manifest(("c1", "p1", "train"), ("c2", "p2", "test"))
    new = manifest(("c1", "p1", "train"), ("c2", "p2", "test"), ("c3", "p1", "train"))
    models = [
        ModelVersion("m", 1, "r1", {"segfoundry.manifest.d": old.digest}, ("previous",)),
        ModelVersion("m", 2, "r2", {"segfoundry.manifest.d": new.digest}, ("champion",)),
        ModelVersion("m", 3, "r3", {"segfoundry.manifest.d": "0" * 64}, ()),
    ]
    versions = {"data-v1": {"d": old}, "data-v2": {"d": new}}
    patient = audit_case("p1", versions, models)
    found = [(place["data_version"], place["case_id"], place["samples"]) for place in patient["places"]]
    assert found == [("data-v1", "c1", 2), ("data-v2", "c1", 2), ("data-v2", "c3", 2)]
    assert patient["places"][0]["shards"] == ["shard-00000.parquet", "shard-00001.parquet"]
    assert [(one["version"], one["use"]) for one in patient["models"]] == [(1, "trained on"), (2, "trained on")]
    tested = audit_case("d/c2", versions, models)
    assert {one["use"] for one in tested["models"]} == {"tested on"}
    nobody = audit_case("nobody", versions, models)
    assert nobody == {"key": "nobody", "found": False, "places": [], "models": [], "unread": []}


def test_a_patient_in_two_splits_is_told_of_each():
    leaking = manifest(("c1", "p1", "train"), ("c2", "p1", "test"))
    model = ModelVersion("m", 1, "r", {"segfoundry.manifest.d": leaking.digest}, ())
    answer = audit_case("p1", {"data-v1": {"d": leaking}}, [model])
    assert sorted(one["use"] for one in answer["models"]) == ["tested on", "trained on"]


def test_what_a_model_learnt_goes_on_into_those_that_start_from_its_weights():
    table = manifest(("c1", "p1", "train"), ("c2", "p2", "test"))

    def version(number: int, weights: str, start: str, data: str = "other") -> ModelVersion:
        tags = {"weights_sha256": weights, "start_sha256": start, "manifest.d": data}
        return ModelVersion("m", number, "r", {f"segfoundry.{key}": value for key, value in tags.items()}, ())

    models = [
        version(4, "w4", "w0"),
        version(3, "w3", "w2"),
        version(2, "w2", "w1"),
        version(1, "w1", "w0", table.digest),
    ]
    learnt = audit_case("c1", {"data-v1": {"d": table}}, models)["models"]
    assert [(one["version"], one["use"]) for one in learnt] == [
        (1, "trained on"),
        (2, "started from version 1"),
        (3, "started from version 2"),
    ]
    tested = audit_case("c2", {"data-v1": {"d": table}}, models)["models"]
    assert [(one["version"], one["use"]) for one in tested] == [(1, "tested on")]  # nothing is learnt from a test


def test_a_model_that_was_only_measured_on_an_external_set_is_found_by_its_evaluation():
    table = manifest(("c2", "p2", "test"))
    model = ModelVersion("m", 1, "r", {}, ())
    assert audit_case("c2", {"data-v1": {"d": table}}, [model])["models"] == []
    seen = audit_case("c2", {"data-v1": {"d": table}}, [model], lambda _: {"d": table.digest})["models"]
    assert [one["use"] for one in seen] == ["tested on"]


def test_a_version_that_cannot_be_read_is_named_and_hides_no_other():
    def gone(names: tuple[str, ...]) -> pa.Table:
        msg = "purged"
        raise ServiceError(msg)

    table = manifest(("c1", "p1", "train"))
    found = audit_case("c1", {"data-v1": {"d": Recorded("old", gone)}, "data-v2": {"d": table}}, [])
    assert [one["data_version"] for one in found["places"]] == ["data-v2"]
    assert found["unread"] == [{"data_version": "data-v1", "dataset": "d", "why": "purged"}]


@pytest.mark.parametrize(
    ("free", "strict"),
    [
        ({"spdx": "CC0-1.0"}, {"spdx": "CC-BY-4.0"}),
        ({"spdx": "CC-BY-4.0"}, {"spdx": "CC-BY-SA-4.0"}),
        ({"spdx": "CC-BY-SA-4.0"}, {"spdx": "CC-BY-NC-4.0"}),
        ({"spdx": "CC-BY-NC-4.0"}, {"spdx": "CC-BY-NC-SA-4.0"}),
        ({"spdx": "CC-BY-NC-SA-4.0"}, {"terms": "research use only"}),
        ({"terms": "research use only"}, {}),
        ({}, {"terms": "data use agreement"}),
        ({"spdx": "MIT"}, {"spdx": "MIT", "commercial": False}),
    ],
)
def test_licences_are_ordered_by_what_they_forbid(free: dict[str, object], strict: dict[str, object]):
    assert licence_strictness(free) < licence_strictness(strict)
    cards = [{"dataset": "a", "licence": free}, {"dataset": "b", "licence": strict}]
    if strict:
        assert strictest_licence(cards) == (strict.get("spdx") or strict.get("terms"))
    else:
        assert strictest_licence(cards) == "unknown"


def test_a_lineage_holds_the_terms_of_the_weights_that_training_started_from(tmp_path: Path) -> None:
    candidate = samples.write_candidate(tmp_path / "candidate")
    evaluation = samples.write_evaluation(tmp_path / "evaluation", candidate)
    assert samples.lineage(candidate, evaluation)["start_licences"] == []
    record = json.loads((candidate / "train.json").read_text())
    terms = [
        {"of": "SAM3 weights", "terms": "SAM License", "commercial": "yes", "redistribution": "yes"},
        {"of": "others' weights", "terms": "no redistribution", "commercial": "no", "redistribution": "no"},
    ]
    recipe = {**record["recipe"], "lora": {"rank": 8, "parts": ["vision"]}}
    record = {**record, "start_licences": terms, "recipe": recipe, "trained_parameters": 1000}
    (candidate / "train.json").write_text(json.dumps(record))
    lineage = samples.lineage(candidate, evaluation)
    assert lineage["start_licences"] == terms
    assert lineage["strictest_licence"] == "no redistribution"
    assert (lineage["commercial_use"], lineage["redistribution"]) == ("no", "no")
    assert lineage["lora"] == recipe["lora"]
    rows = {label: value for label, value, _ in lineage_rows({}, record, [], lineage)}
    assert rows["Parameters"] == "4,812,331, 1,000 trained, LoRA of rank 8 in vision"
    assert rows["Strictest licence"] == "no redistribution"
    assert rows["Start weights' terms"] == "SAM3 weights: SAM License; others' weights: no redistribution"
