"""Phantoms hold what their truth says, read by tools that did not write them."""

from __future__ import annotations

import gzip
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pyarrow.parquet as pq
import pydicom
import pytest
import SimpleITK as sitk
from PIL import Image

from infra.errors import UsageError
from infra.storage import read_json
from preprocessing import schema
from preprocessing.build import build_dataset
from preprocessing.cards import load_card
from preprocessing.inventory import scan
from preprocessing.pairing import pair
from preprocessing.phantoms import PHANTOMS, make_phantom, truth_file

PARAMS: dict[str, Any] = {
    "harmonize": {"orientation": "LPS", "min_object_area_px": 1},
    "shards": {"target_bytes": 8_000_000},
    "splits": {"key": "segfoundry", "val": 0.2, "test": 0.2},
}


class Made:
    """All phantoms, made once in `root`: `truth` is what they hold, `seconds` the processor time it took."""

    def __init__(self, root: Path) -> None:
        began = time.process_time()
        self.root = root
        self.truth: dict[str, dict[str, Any]] = {name: make_phantom(name, root) for name in PHANTOMS}
        self.seconds = time.process_time() - began


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("phantoms"))


def test_all_phantoms_are_made_within_ten_seconds(made: Made) -> None:
    assert made.seconds < 10


def test_the_truth_lies_beside_the_dataset_and_never_inside(made: Made) -> None:
    for name in PHANTOMS:
        assert read_json(truth_file(name, made.root)) == made.truth[name]
        assert not [path for path in (made.root / name).rglob("*") if "truth" in path.name]


@pytest.mark.parametrize("name", PHANTOMS)
def test_equal_seeds_give_equal_bytes_and_other_seeds_other_ones(made: Made, name: str, tmp_path: Path) -> None:
    first = scan(made.root / name, tmp_path / "c.json")
    assert make_phantom(name, tmp_path / "again") == made.truth[name]
    assert scan(tmp_path / "again" / name, tmp_path / "c.json") == first
    if name == "Phantom_Lesion_US":
        make_phantom(name, tmp_path / "other", seed=8)
        other = {each["sha256"] for each in scan(tmp_path / "other" / name, tmp_path / "c.json")}
        assert not other & {each["sha256"] for each in first}


def test_a_complete_phantom_is_kept_and_a_killed_one_is_made_again(tmp_path: Path, made: Made) -> None:
    name = "Phantom_Lesion_US"
    make_phantom(name, tmp_path)
    picture = tmp_path / name / "images" / "us_001.png"
    before = picture.stat().st_mtime_ns
    assert make_phantom(name, tmp_path) == made.truth[name]
    assert picture.stat().st_mtime_ns == before
    # killed between the rename and the truth, or in the middle of writing
    truth_file(name, tmp_path).unlink()
    picture.write_bytes(b"half")
    (tmp_path / f".{name}.99.part-folder").mkdir()
    make_phantom(name, tmp_path)
    assert picture.read_bytes() == (made.root / name / "images" / "us_001.png").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [name, f"{name}.truth.json"]


def test_an_exception_leaves_nothing_half_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(folder: Path, seed: int) -> None:
        (folder / "x").write_text("x")
        raise OSError("the disk is full")

    monkeypatch.setattr("preprocessing.phantoms.nuclei.make", broken)
    with pytest.raises(OSError, match="full"):
        make_phantom("Phantom_Nuclei", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_phantom_is_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Phantom_MR_NIfTI"):
        make_phantom("BUSI", tmp_path)


@pytest.mark.parametrize("name", PHANTOMS)
def test_the_card_finds_every_case_and_no_file_is_left_over(made: Made, name: str, tmp_path: Path) -> None:
    card, truth = load_card(name), made.truth[name]
    files = [str(each["file"]) for each in scan(made.root / name, tmp_path / "c.json")]
    cases = pair(card, files)
    assert {case.case_id for case in cases} == {*truth["voxels"], *(fault["case_id"] for fault in truth["faults"])}
    assert sorted(file for case in cases for file in case.files) == files
    assert {concept for counts in truth["voxels"].values() for concept in counts} == set(card.concepts)
    assert (card.licence.spdx, card.public) == ("CC0-1.0", True)
    assert all(count > 0 for counts in truth["voxels"].values() for count in counts.values())


def test_a_patient_with_two_series_is_one_group(made: Made, tmp_path: Path) -> None:
    name = "Phantom_CT_DICOM"
    files = [str(each["file"]) for each in scan(made.root / name, tmp_path / "c.json")]
    groups = [case.group for case in pair(load_card(name), files)]
    assert len(groups) == 10
    assert len(set(groups)) == 8


def test_mr_volumes_are_oblique_and_anisotropic_and_their_labels_count_as_the_truth_says(made: Made) -> None:
    name = "Phantom_MR_NIfTI"
    for case, counts in made.truth[name]["voxels"].items():
        image = sitk.ReadImage(str(made.root / name / "imagesTr" / f"{case}.nii.gz"))
        label = sitk.ReadImage(str(made.root / name / "labelsTr" / f"{case}.nii.gz"))
        direction = np.array(image.GetDirection()).reshape(3, 3)
        np.testing.assert_allclose(direction @ direction.T, np.eye(3), atol=1e-5)
        assert np.abs(direction).max(axis=0).min() < 0.9999
        assert image.GetSpacing()[2] > 2 * image.GetSpacing()[0]
        np.testing.assert_allclose(label.GetDirection(), image.GetDirection(), atol=1e-6)
        assert label.GetSize() == image.GetSize()
        values, pixels = sitk.GetArrayFromImage(label), sitk.GetArrayFromImage(image)
        assert counts == {"bright ellipsoid": int((values == 1).sum()), "dark ellipsoid": int((values == 2).sum())}
        means = [pixels[values == value].mean() for value in (2, 1)]
        assert means[0] + 200 < means[1]


def test_ct_series_and_their_segmentation_agree_with_the_truth(made: Made) -> None:
    name = "Phantom_CT_DICOM"
    for case, counts in made.truth[name]["voxels"].items():
        patient, series = case.split("_series_")
        home = made.root / name / patient / f"series_{series}"
        slices = sorted(
            (pydicom.dcmread(path) for path in (home / "ct").iterdir()), key=lambda each: each.ImagePositionPatient[2]
        )
        assert len(slices) == 10
        assert len({each.SeriesInstanceUID for each in slices}) == 1
        assert all(each.SOPInstanceUID.is_valid for each in slices)
        uids = [each.SOPInstanceUID for each in slices]
        seg = highdicom.seg.segread(home / "seg" / "segmentation.dcm")
        assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == slices[0].SeriesInstanceUID
        masks = seg.get_pixels_by_source_instance(uids, assert_missing_frames_are_empty=True)
        labels = [str(each.SegmentLabel) for each in seg.SegmentSequence]
        assert dict(zip(labels, masks.sum(axis=(0, 1, 2)).tolist(), strict=True)) == counts
        hounsfield = np.stack([each.pixel_array * float(each.RescaleSlope) + each.RescaleIntercept for each in slices])
        rod, mass = (hounsfield[masks[..., index] > 0] for index in range(2))
        assert 280 < rod.mean() < 360
        assert 100 < mass.mean() < 150
        assert hounsfield[:, 0, 0].mean() < -900


def test_ct_file_names_do_not_give_the_order_of_slices_away(made: Made) -> None:
    folder = made.root / "Phantom_CT_DICOM" / "patient_01" / "series_1" / "ct"
    heights = [float(pydicom.dcmread(path).ImagePositionPatient[2]) for path in sorted(folder.iterdir())]
    assert heights != sorted(heights)
    assert heights != sorted(heights, reverse=True)


def test_nuclei_masks_are_as_many_and_as_large_as_the_truth_says_and_never_touch(made: Made) -> None:
    name = "Phantom_Nuclei"
    assert len(made.truth[name]["voxels"]) == 24
    for case, counts in made.truth[name]["voxels"].items():
        home = made.root / name / "stage1_train" / case
        masks = [np.array(Image.open(path)) for path in sorted((home / "masks").iterdir())]
        with Image.open(home / "images" / f"{case}.png") as picture:
            assert picture.size == (128, 112)
        assert {"phantom nucleus": len(masks)} == made.truth[name]["instances"][case]
        assert {"phantom nucleus": sum(int((mask > 0).sum()) for mask in masks)} == counts
        assert np.sum([mask > 0 for mask in masks], axis=0).max() == 1


def test_lesion_colours_count_as_the_truth_says(made: Made) -> None:
    name = "Phantom_Lesion_US"
    colours = {"benign phantom lesion": (0, 255, 0), "malignant phantom lesion": (255, 0, 0)}
    seen = set()
    for case, counts in made.truth[name]["voxels"].items():
        mask = np.array(Image.open(made.root / name / "masks" / f"{case}.png"))
        picture = np.array(Image.open(made.root / name / "images" / f"{case}.png"))
        for concept, count in counts.items():
            seen.add(concept)
            inside = (mask == colours[concept]).all(axis=-1)
            assert int(inside.sum()) == count
            assert picture[inside].mean() < picture[~inside].mean()
    assert seen == set(colours)


def test_planted_faults_are_what_their_reason_says(made: Made) -> None:
    planted = {
        (name, fault["reason"]): made.root / name / fault["file"]
        for name in PHANTOMS
        for fault in made.truth[name]["faults"]
    }
    orphan = planted["Phantom_MR_NIfTI", "label_missing"]
    assert orphan.is_file()
    assert not (orphan.parents[1] / "labelsTr" / orphan.name).exists()
    smaller = planted["Phantom_MR_NIfTI", "mask_size"]
    image = sitk.ReadImage(str(smaller.parents[1] / "imagesTr" / smaller.name))
    assert sitk.ReadImage(str(smaller)).GetSize() != image.GetSize()
    # SimpleITK reads a NIfTI that ends early without a word, so gzip is the witness
    with pytest.raises(EOFError):
        gzip.decompress(planted["Phantom_MR_NIfTI", "unreadable"].read_bytes())
    heights = sorted(
        float(pydicom.dcmread(path).ImagePositionPatient[2])
        for path in planted["Phantom_CT_DICOM", "missing_slice"].iterdir()
    )
    assert set(np.diff(heights)) == {4.0, 8.0}
    mask = np.array(Image.open(planted["Phantom_Lesion_US", "unknown_label"]))
    assert set(map(tuple, mask.reshape(-1, 3))) == {(0, 0, 0), (0, 0, 255)}


def test_phantoms_are_named_as_phantoms_everywhere() -> None:
    assert len(PHANTOMS) == 4
    for name in PHANTOMS:
        card = load_card(name)
        assert name.startswith("Phantom_")
        assert "generated" in card.title
        assert card.official is None


@pytest.mark.parametrize("name", PHANTOMS)
def test_a_phantom_ingests_to_its_truth_and_its_faults_are_caught(made: Made, name: str, tmp_path: Path) -> None:
    truth = made.truth[name]
    root, out = made.root / name, tmp_path / "out"
    inventory = scan(root, tmp_path / "cache.json")
    report = build_dataset(
        load_card(name),
        root,
        inventory,
        out,
        PARAMS,
        pseudonym_key=b"test",
        case_cache=None,
        source_kind="phantom",
    )

    cases = pq.read_table(out / schema.CASES_FILE).to_pylist()
    # a concept that was looked for and not found counts zero; the truth names what is there
    voxels = {row["case_id"]: {k: v for k, v in json.loads(row["source_voxels"]).items() if v} for row in cases}
    assert voxels == truth["voxels"]
    refused = pq.read_table(out / schema.QUARANTINE_FILE).to_pylist()
    assert {(row["case_id"], row["reason"]) for row in refused} == {
        (fault["case_id"], fault["reason"]) for fault in truth["faults"]
    }
    for row in refused:
        fault = next(each for each in truth["faults"] if each["case_id"] == row["case_id"])
        assert row["file"].startswith(fault["file"])

    counts = report["counts"]
    assert counts["cases_found"] == counts["cases_kept"] + counts["cases_quarantined"] == len(cases) + len(refused)
    assert counts["files_found"] == counts["files_used"] + counts["files_quarantined"] == len(inventory)
    assert counts["samples"] >= len(cases)
    manifest = schema.read_manifest(out).to_pylist()
    for case, instances in truth["instances"].items():
        objects = [each["concept"] for row in manifest if row["case_id"] == case for each in row["objects"]]
        assert Counter(objects) == instances
