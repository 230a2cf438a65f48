"""What weights bring with them: their terms, which are inherited, and the way in which pictures become their input."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from preprocessing.schema.licences import licence_strictness, model_licence, why_left_out
from tests.training.made import write_dataset
from training.decode import decode_image
from training.fit import open_stream, prepare
from training.predict import to_pixel_values
from training.prepared import rows_of, shards_of
from training.recipes import tiny
from training.sam3.licence import SAM, preprocessing_of_start, start_licences
from training.sam3.preprocess import official_pixel_values
from training.spec import FitSpec

OFFICIAL = {
    "layout": "official",
    "prefix": "detector.",
    "aside": {"the video tracker's: not part": 4},
    "source": "x.pt",
}
ATTRIBUTION = {"strictest": "CC-BY-4.0", "commercial": "yes", "redistribution": "yes"}


def _ours(folder: Path, **record: Any) -> str:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"engine": "training.predict:Segmenter"}))
    (folder / "model.safetensors").write_bytes(b"")
    if record:
        (folder / "train.json").write_text(json.dumps(record))
    return str(folder)


def test_terms_of_weights_by_where_they_come_from(tmp_path: Path) -> None:
    assert start_licences("", {}) == []
    file = tmp_path / "sam3.pt"
    file.write_bytes(b"")
    assert start_licences(str(file), OFFICIAL) == [SAM]
    # without the tracker, or without the prefix, somebody has trained them further
    for changed in ({"aside": {}}, {"prefix": ""}, {"layout": "transformers"}):
        found = start_licences(str(file), {**OFFICIAL, **changed})
        assert found[0] == SAM
        assert [one["terms"] for one in found] == ["SAM License", "not stated"]
    folder = tmp_path / "Medical-SAM3"
    folder.mkdir()
    (folder / "checkpoint.pt").write_bytes(b"")
    medical = start_licences(str(folder / "checkpoint.pt"), OFFICIAL)
    assert [one["of"] for one in medical] == ["SAM3 weights", "Medical-SAM3 weights"]
    bound = model_licence([{"licence": one} for one in medical])
    assert bound == {"strictest": "not stated", "commercial": "unknown", "redistribution": "unknown"}
    assert why_left_out(SAM, "commercial") is None
    assert why_left_out(medical[1], "commercial") is not None
    assert licence_strictness({"spdx": "CC-BY-NC-SA-4.0"}) < licence_strictness(SAM) < licence_strictness(medical[1])


def test_a_model_continued_from_another_inherits_its_terms(tmp_path: Path) -> None:
    first = _ours(tmp_path / "1", start_licences=[SAM], licence=ATTRIBUTION, weights_sha256="a" * 64)
    inherited = start_licences(first, {})
    assert [one["terms"] for one in inherited] == ["SAM License", "CC-BY-4.0"]
    research = {"strictest": "research only", "commercial": "no", "redistribution": "unknown"}
    second = _ours(tmp_path / "2", start_licences=inherited, licence=research, weights_sha256="b" * 64)
    third = start_licences(second, {})
    assert [one["terms"] for one in third] == ["SAM License", "CC-BY-4.0", "research only"]
    assert model_licence([{"licence": one} for one in third])["commercial"] == "no"
    # from nothing: data alone
    assert [one["terms"] for one in start_licences(_ours(tmp_path / "3", licence=ATTRIBUTION), {})] == ["CC-BY-4.0"]
    # a record of before says from what it started, if not under which terms
    before = _ours(tmp_path / "4", licence=ATTRIBUTION, start=OFFICIAL)
    assert [one["terms"] for one in start_licences(before, {})] == ["SAM License", "CC-BY-4.0"]
    assert [one["commercial"] for one in start_licences(_ours(tmp_path / "5"), {})] == ["unknown"]


def test_the_start_says_how_pictures_are_resized(tmp_path: Path) -> None:
    (tmp_path / "sam3.pt").write_bytes(b"")
    assert preprocessing_of_start(str(tmp_path / "sam3.pt")) == "official"
    ours = _ours(tmp_path / "ours")
    assert preprocessing_of_start(ours) == "pillow"
    (tmp_path / "ours" / "config.json").write_text(json.dumps({"engine": "x", "preprocessing": "official"}))
    assert preprocessing_of_start(ours) == "official"
    assert tiny().preprocessing == "pillow"


@pytest.mark.parametrize("kind", ["shards", "prepared"])
@pytest.mark.parametrize("way", ["official", "pillow"])
def test_training_evaluation_and_serving_see_the_same_pixels(tmp_path: Path, kind: str, way: str) -> None:
    write_dataset(tmp_path / "data", "Alpha", 6)
    recipe = replace(
        tiny(), stream=kind, image_size=40, mask_size=20, global_batch=6, most_visits=0, augment={}, preprocessing=way
    )
    spec = FitSpec(recipe, str(tmp_path / "data"), ["Alpha"], str(tmp_path))
    prepare(spec, "train", 0, 1)
    [batch] = islice(open_stream(spec, "train", 0, 1), 1)
    trained = dict(zip(batch.sample_ids, batch.pixel_values, strict=True))
    [shard] = shards_of(tmp_path / "data", "Alpha")
    others = 0
    for row in rows_of(shard, "train"):
        whole = decode_image(row["image"])
        served = to_pixel_values(whole, 40, way)
        evaluated = to_pixel_values(decode_image(row["image"], 40, way), 40, way)
        assert torch.equal(served, evaluated)
        assert torch.allclose(trained[row["sample_id"]], served, atol=1e-6)
        official = official_pixel_values(np.repeat(whole, 3, axis=-1), 40)
        others += int((served != official).sum())
    assert (others == 0) == (way == "official")
