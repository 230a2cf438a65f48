"""What every dataset version promises to those who read it, on real data."""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pycocotools import mask as coco

from infra.storage import sha256_file
from preprocessing import schema

NAMES = (
    "dcmqi",
    "pyradiomics",
    "CHASE_DB1",
    "Kvasir-SEG",
    "BUSI",
    "DSB2018",
    "WBC_segmentation",
    "MSD_Hippocampus_udacity",
)


def _decode(row: dict[str, Any], item: dict[str, Any]) -> np.ndarray:
    return coco.decode({"size": [row["height"], row["width"]], "counts": item["rle"].encode()}).astype(bool)


def _union(row: dict[str, Any], concept: str) -> np.ndarray:
    found = np.zeros((row["height"], row["width"]), dtype=bool)
    for item in row["objects"]:
        if item["concept"] == concept:
            found |= _decode(row, item)
    return found


def _pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.mark.parametrize("name", NAMES)
def test_files_have_the_written_schema_and_hashes(versions: dict[str, Any], name: str) -> None:
    version = versions[name]
    for shard, said in version.report["shards"].items():
        assert pq.read_schema(version.folder / shard).equals(schema.SHARD_SCHEMA)
        assert pq.read_metadata(version.folder / shard).num_rows == said["rows"]
        assert sha256_file(version.folder / shard) == said["sha256"]
    assert pq.read_schema(version.folder / schema.MANIFEST_FILE).equals(schema.MANIFEST_SCHEMA)
    assert pq.read_schema(version.folder / schema.CASES_FILE).equals(schema.CASES_SCHEMA)
    assert pq.read_schema(version.folder / schema.QUARANTINE_FILE).equals(schema.QUARANTINE_SCHEMA)
    manifest = schema.read_manifest(version.folder)
    assert schema.manifest_digest(manifest) == version.report["manifest_digest"]
    by_place = {(row["shard"], row["row"]): row for row in manifest.to_pylist()}
    for shard in version.report["shards"]:
        for index, row in enumerate(version.table(shard).to_pylist()):
            pixels = np.asarray(Image.open(io.BytesIO(row.pop("image"))))
            said = hashlib.sha256(f"uint8 {pixels.shape}\n".encode() + pixels.tobytes()).digest()
            assert row["pixels_digest"] == said[: schema.DIGEST_BYTES]
            assert row["labels_digest"] is not None
            assert {**row, "shard": shard, "row": index} == by_place[shard, index]


@pytest.mark.parametrize("name", NAMES)
def test_counts_add_up(versions: dict[str, Any], name: str) -> None:
    version = versions[name]
    counts = version.report["counts"]
    quarantine = version.table(schema.QUARANTINE_FILE).to_pylist()
    cases = version.table(schema.CASES_FILE).to_pylist()
    manifest = schema.read_manifest(version.folder).to_pylist()
    assert counts["cases_found"] == counts["cases_kept"] + counts["cases_quarantined"]
    assert counts["cases_kept"] == len(cases) == len({row["case_id"] for row in manifest})
    assert counts["cases_quarantined"] == len(quarantine) == len({row["case_id"] for row in quarantine})
    assert (
        counts["samples"]
        == len(manifest)
        == sum(row["samples"] for row in cases)
        == sum(version.report["splits"].values())
    )
    assert counts["files_found"] == len(version.inventory)
    assert counts["files_found"] == counts["files_used"] + counts["files_quarantined"] + counts["files_not_data"]
    known = {line["file"]: line["sha256"] for line in version.inventory}
    for row in manifest:
        assert all(known[item["file"]] == item["sha256"] for item in row["source"])
        present = {item["concept"] for item in row["objects"]}
        assert not present & set(row["absent"])
        assert present | set(row["absent"]) <= set(schema.read_concepts(version.folder))


def test_orphans_are_quarantined_for_what_they_are(versions: dict[str, Any]) -> None:
    rows = versions["MSD_Hippocampus_udacity"].table(schema.QUARANTINE_FILE).to_pylist()
    assert {row["case_id"]: row["reason"] for row in rows} == {
        "Study1_13_HCropVolume": "label_missing",
        "hippocampus_118": "label_missing",
        "hippocampus_010": "image_missing",
        "hippocampus_281": "image_missing",
    }


@pytest.mark.parametrize("name", NAMES)
def test_boxes_and_areas_agree_with_pycocotools(versions: dict[str, Any], name: str) -> None:
    for row in versions[name].rows():
        for item in row["objects"]:
            encoded = {"size": [row["height"], row["width"]], "counts": item["rle"].encode()}
            x, y, width, height = coco.toBbox(encoded)
            assert item["bbox_xyxy"] == [int(x), int(y), int(x + width), int(y + height)]
            assert item["area"] == int(coco.area(encoded))
        numbers = defaultdict(list)
        for item in row["objects"]:
            numbers[item["concept"]].append(item["instance"])
        assert all(found == list(range(1, len(found) + 1)) for found in numbers.values())


def test_masks_are_the_source_masks_pixel_for_pixel(versions: dict[str, Any]) -> None:
    checked: Counter[str] = Counter()
    for name in ("Kvasir-SEG", "CHASE_DB1", "BUSI", "WBC_segmentation"):
        for row in versions[name].rows():
            truth = _pixels(versions[name].root / row["source"][1]["file"])
            if name == "Kvasir-SEG":
                expected = {"polyp": truth[..., 0] > 127}
            elif name == "CHASE_DB1":
                assert row["source"][1]["file"].endswith("_1stHO.png")
                expected = {"retinal vessel": truth}
            elif name == "BUSI":
                expected = {
                    "benign breast tumor": (truth == (0, 255, 0)).all(axis=2),
                    "malignant breast tumor": (truth == (255, 0, 0)).all(axis=2),
                }
            else:
                nearest = np.abs(truth.astype(int)[..., None] - np.array([0, 128, 255])).argmin(axis=-1)
                expected = {"white blood cell cytoplasm": nearest == 1, "white blood cell nucleus": nearest == 2}
            for concept, mask in expected.items():
                assert np.array_equal(_union(row, concept), mask)
                checked[concept] += int(mask.any())
    assert len(checked) == 6
    assert all(checked[concept] for concept in checked if concept != "malignant breast tumor")


def test_each_nucleus_file_is_one_instance(versions: dict[str, Any]) -> None:
    version = versions["DSB2018"]
    for row in version.rows():
        files = [item["file"] for item in row["source"][1:]]
        assert len(row["objects"]) == len(files)
        for item, file in zip(row["objects"], files, strict=True):
            assert np.array_equal(_decode(row, item), _pixels(version.root / file) > 127)


def test_volume_counts_are_the_source_labels_counts(versions: dict[str, Any]) -> None:
    import SimpleITK as sitk

    version = versions["MSD_Hippocampus_udacity"]
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for row in version.rows():
        for item in row["objects"]:
            found[row["case_id"]][item["concept"]] += item["area"]
    cases = version.table(schema.CASES_FILE).to_pylist()
    assert len(cases) >= 5
    for case in cases:
        label = sitk.ReadImage(str(version.root / "TrainingSet/labels" / f"{case['case_id']}.nii.gz"))
        array = sitk.GetArrayFromImage(label)
        expected = {"anterior hippocampus": int((array == 1).sum()), "posterior hippocampus": int((array == 2).sum())}
        assert json.loads(case["source_voxels"]) == expected == dict(found[case["case_id"]])


def test_dicom_seg_gives_what_the_nrrd_copy_says(versions: dict[str, Any]) -> None:
    import SimpleITK as sitk

    version = versions["dcmqi"]
    cases = {row["case_id"]: json.loads(row["source_voxels"]) for row in version.table(schema.CASES_FILE).to_pylist()}
    truth = sitk.GetArrayFromImage(sitk.ReadImage(str(version.root / "segmentations/liver_seg.nrrd")))
    assert cases["segmentations_ct-3slice"]["liver"] == int((truth == 1).sum())
    slices = sorted(
        (row for row in version.rows() if row["case_id"] == "segmentations_ct-3slice"),
        key=lambda row: row["slice_index"],
    )
    assert np.array_equal(np.stack([_union(row, "liver") for row in slices]), truth == 1)
    overlaps = [
        (_union(row, left) & _union(row, right)).any()
        for row in slices
        for left, right in (("green test region", "orange test region"), ("green test region", "purple test region"))
    ]
    assert any(overlaps), "overlapping segments must stay whole"
    crops = [row for row in version.rows() if row["case_id"] != "segmentations_ct-3slice"]
    assert not any("green test region" in row["absent"] for row in crops), "not searched for is not absent"


def test_empty_slices_are_true_negatives(versions: dict[str, Any]) -> None:
    rows = versions["MSD_Hippocampus_udacity"].rows()
    empty = [row for row in rows if not row["objects"]]
    assert empty
    assert all(row["absent"] == ["anterior hippocampus", "posterior hippocampus"] for row in empty)


def test_two_annotators_agree_as_people_do(versions: dict[str, Any]) -> None:
    cases = versions["CHASE_DB1"].table(schema.CASES_FILE).to_pylist()
    values = [json.loads(row["agreement"])["2ndHO"]["retinal vessel"] for row in cases]
    assert all(0.6 < value < 0.95 for value in values)
    eyes = defaultdict(set)
    for row in cases:
        eyes[row["case_id"][:8]].add((row["group_id"], row["split"]))
    assert len(eyes) == 3
    assert all(len(found) == 1 for found in eyes.values())
    assert not any(row["case_id"] in row["group_id"] for row in cases)


@pytest.mark.parametrize("name", ["Kvasir-SEG", "CHASE_DB1", "DSB2018", "BUSI"])
def test_pictures_are_the_source_pictures(versions: dict[str, Any], name: str) -> None:
    for row in versions[name].rows():
        source = _pixels(versions[name].root / row["source"][0]["file"])
        stored = np.asarray(Image.open(io.BytesIO(row["image"])))
        shown = stored if stored.ndim == 3 else np.repeat(stored[..., None], 3, axis=2)
        assert np.array_equal(shown, source[..., :3])
        assert row["image_format"] == ("jpeg" if name in ("Kvasir-SEG", "CHASE_DB1") else "png")


def test_public_tools_open_the_shards(versions: dict[str, Any]) -> None:
    from datasets import load_dataset

    version = versions["MSD_Hippocampus_udacity"]
    pattern = str(version.folder / "shard-*.parquet")
    total = version.report["counts"]["samples"]
    assert duckdb.sql(f"select count(*), count(distinct sample_id) from '{pattern}'").fetchall() == [(total, total)]
    areas = duckdb.sql(f"select sum(o.area) from (select unnest(objects) as o from '{pattern}')").fetchall()
    assert areas == [(sum(item["area"] for row in version.rows() for item in row["objects"]),)]
    opened = load_dataset(
        "parquet", data_files=pattern, split="train", cache_dir=str(version.folder.parent / "hf"), num_proc=None
    )
    assert opened.num_rows == total
    assert opened[0]["objects"] is not None
    assert opened[0]["image"][:4] == b"\x89PNG"


def test_nothing_written_names_this_machine(versions: dict[str, Any]) -> None:
    for version in versions.values():
        for path in version.folder.iterdir():
            assert str(version.root).encode() not in path.read_bytes()
        assert not list(version.folder.glob(".*"))
        page = (version.folder / schema.CARD_FILE).read_text(encoding="utf-8")
        assert version.card.citation.split(",")[0] in page
        to_show = {"train", "val"} & {split for split, count in version.report["splits"].items() if count}
        assert ("data:image/jpeg;base64," in page) == bool(to_show)  # who reads a card has not seen the test set
        assert "<script" not in page
        assert 'src="http' not in page
