"""Exports say what the rows say, in files that the tools of each format open."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import SimpleITK as sitk
from PIL import Image

from infra.errors import DataError, UsageError
from preprocessing import schema
from preprocessing.build import build_dataset
from preprocessing.cards import load_card
from preprocessing.export import export
from preprocessing.export.rows import file_keys
from tests.preprocessing.made_version import row, version
from tests.preprocessing.test_build import PARAMS, inventory_of

RNG = np.random.default_rng(5)


def _box(y: int, x: int, size: int = 6) -> np.ndarray[Any, Any]:
    mask = np.zeros((20, 24), dtype=bool)
    mask[y : y + size, x : x + size] = True
    return mask


def _grey() -> np.ndarray[Any, Any]:
    return RNG.integers(0, 256, (20, 24), dtype=np.uint8)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Overlapping tumor and organ, an image that nobody searched for tumors, a true negative, colours."""
    colours = RNG.integers(0, 256, (20, 24, 3), dtype=np.uint8)
    return version(
        tmp_path / "made",
        [
            row("a/one.x", _grey(), {"organ": [_box(2, 2, 12)], "tumor": [_box(4, 4), _box(10, 10)]}),
            row("b", _grey(), {"organ": [_box(1, 1)]}),
            row("c", _grey(), {}, absent=("organ", "tumor"), split="val"),
            row("d" * 120, colours, {"organ": [_box(3, 3)]}, ("tumor",), "test"),
        ],
    )


def _rows(folder: Path) -> dict[str, dict[str, Any]]:
    shards = sorted(folder.glob("shard-*.parquet"))
    return {one["sample_id"]: one for path in shards for one in pq.read_table(path).to_pylist()}


def test_the_trainer_never_sees_an_unknown_concept_as_a_negative(made: Path, tmp_path: Path) -> None:
    from pycocotools.coco import COCO

    said = export(made, tmp_path / "out", "coco", separate_instances=True)
    assert (said["samples"], said["objects"]) == (4, 5)
    rows, seen = _rows(made), []
    index = json.loads((tmp_path / "out/sam3/index.json").read_text())
    for file, told in index.items():
        opened = COCO(str(tmp_path / "out" / file))
        prompts = {one["id"]: one["name"] for one in opened.dataset["categories"]}
        assert sorted(prompts.values()) == sorted(told["prompts"])
        for image in opened.dataset["images"]:
            one = rows[image["sample_id"]]
            assert one["split"] == told["split"]
            # the official loader asks for every category of the file: present or a negative, never unknown
            found = {prompts[item["category_id"]] for item in opened.loadAnns(opened.getAnnIds(imgIds=[image["id"]]))}
            assert found == {item["concept"] for item in one["objects"]}
            assert set(prompts.values()) - found == set(one["absent"])
            assert (tmp_path / "out" / told["img_folder"] / image["file_name"]).read_bytes() == one["image"]
            seen.append(image["sample_id"])
    assert sorted(seen) == sorted(rows)
    whole = json.loads((tmp_path / "out/annotations.json").read_text())
    names = {one["id"]: one["name"] for one in whole["categories"]}
    assert {image["sample_id"]: [names[one] for one in image["neg_category_ids"]] for image in whole["images"]} == {
        name: one["absent"] for name, one in rows.items()
    }


def test_evaluation_pairs_say_what_is_exhaustive(made: Path, tmp_path: Path) -> None:
    export(made, tmp_path / "whole", "coco")
    export(made, tmp_path / "parts", "coco", separate_instances=True)
    for name, instances in (("whole", 0), ("parts", 1)):
        told = json.loads((tmp_path / name / "saco/train.json").read_text())
        pairs = {(one["sample_id"], one["text_input"]): one for one in told["images"]}
        assert set(pairs) == {("made/a/one.x", "organ"), ("made/a/one.x", "tumor"), ("made/b", "organ")}
        assert all(one["is_pixel_exhaustive"] == 1 for one in pairs.values())
        assert all(one["is_instance_exhaustive"] == instances for one in pairs.values())
        tumors = [one for one in told["annotations"] if one["image_id"] == pairs["made/a/one.x", "tumor"]["id"]]
        assert [one["bbox"] for one in tumors] == [[4 / 24, 4 / 20, 6 / 24, 6 / 20], [10 / 24, 10 / 20, 6 / 24, 6 / 20]]
        absent = json.loads((tmp_path / name / "saco/val.json").read_text())
        assert [one["is_instance_exhaustive"] for one in absent["images"]] == [1, 1]
        assert absent["annotations"] == []


def test_nnunet_keeps_overlaps_as_regions_and_the_unknown_as_ignore(made: Path, tmp_path: Path) -> None:
    target = tmp_path / "Dataset007_Made"
    said = export(made, target, "nnunet")
    told = json.loads((target / "dataset.json").read_text())
    assert told["labels"] == {"background": 0, "organ": [1, 3], "tumor": [2, 3], "ignore": 4}
    assert told["regions_class_order"] == [1, 2]
    assert told["channel_names"] == {"0": "R", "1": "G", "2": "B"}
    assert told["numTraining"] == 3
    assert any("organ + tumor" in note for note in said["notes"])
    assert json.loads((target / "splits_final.json").read_text()) == [{"train": ["a__one_x", "b"], "val": ["c"]}]
    label = np.asarray(Image.open(target / "labelsTr/a__one_x.png"))
    organ, tumor = _box(2, 2, 12), _box(4, 4) | _box(10, 10)
    assert np.array_equal(np.isin(label, told["labels"]["organ"]), organ)
    assert np.array_equal(np.isin(label, told["labels"]["tumor"]), tumor)
    assert not (label == 4).any()
    unsearched = np.asarray(Image.open(target / "labelsTr/b.png"))
    assert np.array_equal(unsearched == 1, _box(1, 1))
    assert np.array_equal(unsearched == 4, ~_box(1, 1))
    assert not np.asarray(Image.open(target / "labelsTr/c.png")).any()
    image = np.asarray(Image.open(target / f"imagesTs/{'d' * 120}_0000.png"))
    assert image.shape == (20, 24, 3)
    grey = np.asarray(Image.open(target / "imagesTr/b_0000.png"))
    assert np.array_equal(grey[..., 0], grey[..., 2])
    with pytest.raises(UsageError, match="Dataset042_plain"):
        export(made, tmp_path / "plain", "nnunet")


def test_nnunet_volumes_lie_where_the_truth_lies(mirror: Path, tmp_path: Path) -> None:
    root = mirror / "dcmqi"
    options: dict[str, Any] = {"pseudonym_key": b"k", "case_cache": None, "source_kind": "mirror"}
    build_dataset(load_card("dcmqi"), root, inventory_of(root), tmp_path / "data", PARAMS, **options)
    target = tmp_path / "Dataset001_dcmqi"
    export(tmp_path / "data", target, "nnunet")
    told = json.loads((target / "dataset.json").read_text())
    values = sorted({v for k, x in told["labels"].items() for v in (x if isinstance(x, list) else [x])})
    assert values == list(range(len(values))), "nnU-Net takes consecutive values alone"
    [path] = target.glob("labelsT*/*ct-3slice.nii.gz")
    [image_path] = target.glob("imagesT*/*ct-3slice_0000.nii.gz")
    label, image = sitk.ReadImage(str(path)), sitk.ReadImage(str(image_path))
    assert np.allclose(label.GetDirection(), image.GetDirection())
    assert label.GetSpacing() == image.GetSpacing()
    truth = sitk.DICOMOrient(sitk.ReadImage(str(root / "segmentations/liver_seg.nrrd")), "LPS")
    assert np.allclose(truth.GetOrigin(), label.GetOrigin(), atol=1e-3)
    found = np.isin(sitk.GetArrayFromImage(label), told["labels"]["liver"])
    assert np.array_equal(found, sitk.GetArrayFromImage(truth) == 1)
    assert sitk.GetArrayFromImage(image).dtype == np.uint8


def test_tars_are_deterministic_sharded_and_hold_the_payload_byte_for_byte(made: Path, tmp_path: Path) -> None:
    import webdataset

    export(made, tmp_path / "a", "webdataset", shard_bytes=3000)
    export(made, tmp_path / "b", "webdataset", shard_bytes=3000)
    tars = sorted(path.name for path in (tmp_path / "a").glob("*.tar"))
    assert tars == ["test-00000.tar", "train-00000.tar", "train-00001.tar", "val-00000.tar"]
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    rows, seen = _rows(made), []
    for name in tars:
        opened = webdataset.WebDataset(f"file:{tmp_path}/a/{name}", shardshuffle=False, empty_check=False)
        for sample in opened:
            told = json.loads(sample["json"])
            one = dict(rows[told["sample_id"]])
            assert sample["png"] == one.pop("image")
            assert told == {key: value.hex() if isinstance(value, bytes) else value for key, value in one.items()}
            assert name.startswith(told["split"])
            seen.append(told["sample_id"])
    assert sorted(seen) == sorted(rows)


def test_two_samples_never_share_a_file_name() -> None:
    keys = file_keys(["d/a.b", "d/a_b", "d/A_b", "d/c", "d/" + "x" * 300])
    assert keys["d/c"] == "d__c"
    assert len({name.lower() for name in keys.values()}) == 5
    assert max(map(len, keys.values())) < 200
    assert file_keys(["d/a.b", "d/a_b"])["d/a.b"] == keys["d/a.b"]


@pytest.mark.parametrize("kind", ["coco", "nnunet", "webdataset"])
def test_an_export_is_whole_or_not_there_and_the_licence_travels(made: Path, tmp_path: Path, kind: str) -> None:
    target = tmp_path / "out" / "Dataset001_made"
    target.mkdir(parents=True)
    said = export(made, target, kind)
    licence = (target / "LICENCE.txt").read_text()
    assert "for tests only" in licence
    assert schema.read_dataset_file(made)["manifest_digest"] in licence
    for file in said["files"]:
        assert (target / file).exists()
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    assert not list(target.rglob(".*"))
    with pytest.raises(UsageError, match="new or empty folder"):
        export(made, target, kind)
    shard = made / "shard-00000.parquet"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:200] + bytes([whole[200] ^ 1]) + whole[201:])
    with pytest.raises(DataError, match=r"shard-00000\.parquet"):
        export(made, target.with_name("Dataset002_made"), kind)
    assert [path.name for path in target.parent.iterdir()] == [target.name]


@pytest.mark.parametrize("options", [{"kind": "voc"}, {"kind": "coco", "split": "dev"}])
def test_an_unknown_format_or_split_is_wrong_use(made: Path, tmp_path: Path, options: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="expected one of"):
        export(made, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
