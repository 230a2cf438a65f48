"""Masks go back to the grid they came from, voxel for voxel, in files that SimpleITK and highdicom open."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pydicom
import pytest
import SimpleITK as sitk
from PIL import Image

from infra.errors import DataError, UsageError
from preprocessing import schema
from preprocessing.back import back, original_masks
from preprocessing.build import build_dataset
from preprocessing.cards import DatasetCard, load_card
from preprocessing.dicom_seg_writer import Algorithm, write_dicom_seg
from preprocessing.phantoms import make_phantom
from tests.preprocessing.test_build import FLAT, PARAMS, draw, inventory_of

KEY = b"key of the tests"
DRAWN = Algorithm("Segfoundry SAM3", "7")
Array = np.ndarray[Any, Any]
Version = tuple[DatasetCard, Path, Path]  # card, raw files, version


def _build(card: DatasetCard, root: Path, out: Path) -> Path:
    options: dict[str, Any] = {"pseudonym_key": KEY, "case_cache": None, "source_kind": "mirror"}
    build_dataset(card, root, inventory_of(root), out, PARAMS, **options)
    return out


def _predictions(folder: Path, path: Path) -> Path:
    """Predictions made equal to the truth, one JSON a line."""
    rows = schema.read_manifest(folder).to_pylist()
    lines = [
        json.dumps({"sample_id": row["sample_id"], "concept": item["concept"], "rle": item["rle"], "score": 0.9})
        for row in rows
        for item in row["objects"]
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def _dice(left: Array, right: Array) -> float:
    assert left.shape == right.shape
    total = int(left.sum()) + int(right.sum())
    return 2 * int((left & right).sum()) / total if total else 1.0


def _go_back(card: DatasetCard, root: Path, folder: Path, case: str, target: Path) -> dict[str, Any]:
    predictions = _predictions(folder, target.with_suffix(".jsonl"))
    return back(
        folder, card, case, target, root=root, pseudonym_key=KEY, predictions=predictions, algorithm=DRAWN
    )  # fmt: skip


def _check_nifti(told: dict[str, Any], target: Path, label: sitk.Image, values: dict[str, int]) -> None:
    """Each NIfTI lies on the label's grid and says what the label says there."""
    truth = sitk.GetArrayFromImage(label)
    for concept, value in values.items():
        if not (truth == value).any() and concept not in told["files"]:
            continue
        found = sitk.ReadImage(str(target / told["files"][concept]))
        assert found.GetSize() == label.GetSize()
        assert np.allclose(found.GetSpacing(), label.GetSpacing(), rtol=1e-5)
        assert np.allclose(found.GetDirection(), label.GetDirection(), atol=1e-5)
        assert np.allclose(found.GetOrigin(), label.GetOrigin(), atol=1e-3)
        assert _dice(sitk.GetArrayFromImage(found) == 1, truth == value) == 1.0
        assert told["voxels"][concept] == int((truth == value).sum())


@pytest.fixture(scope="module")
def ct(tmp_path_factory: pytest.TempPathFactory) -> Version:
    """Card, raw files and version of the CT phantom."""
    base = tmp_path_factory.mktemp("ct")
    make_phantom("Phantom_CT_DICOM", base / "raw")
    card, root = load_card("Phantom_CT_DICOM"), base / "raw" / "Phantom_CT_DICOM"
    return card, root, _build(card, root, base / "data")


@pytest.fixture(scope="module")
def dcmqi(mirror: Path, tmp_path_factory: pytest.TempPathFactory) -> Version:
    """Card, raw files and version of dcmqi."""
    card, root = load_card("dcmqi"), mirror / "dcmqi"
    return card, root, _build(card, root, tmp_path_factory.mktemp("dcmqi") / "data")


def test_oblique_phantoms_come_back_exactly(tmp_path: Path) -> None:
    make_phantom("Phantom_MR_NIfTI", tmp_path / "raw")
    card, root = load_card("Phantom_MR_NIfTI"), tmp_path / "raw" / "Phantom_MR_NIfTI"
    folder = _build(card, root, tmp_path / "data")
    cases = pq.read_table(folder / schema.CASES_FILE).column("case_id").to_pylist()
    assert len(cases) == 10
    for case in cases[:4]:
        target = tmp_path / case
        told = _go_back(card, root, folder, case, target)
        label = sitk.ReadImage(str(root / f"labelsTr/{case}.nii.gz"))
        assert abs(np.array(label.GetDirection()).reshape(3, 3)).max(axis=0).min() < 0.999, "not oblique"
        _check_nifti(told, target, label, {"bright ellipsoid": 1, "dark ellipsoid": 2})
        assert "dicom_seg" not in told
        assert json.loads((target / "masks.json").read_text()) == told


def test_hippocampi_come_back_exactly(mirror: Path, tmp_path: Path) -> None:
    card, root = load_card("MSD_Hippocampus_udacity"), tmp_path / "raw"
    for kind in ("images", "labels"):
        files = sorted((mirror / card.name / "TrainingSet" / kind).iterdir())
        (root / "TrainingSet" / kind).mkdir(parents=True)
        for file in files[:4]:
            shutil.copyfile(file, root / "TrainingSet" / kind / file.name)
    folder = _build(card, root, tmp_path / "data")
    cases = pq.read_table(folder / schema.CASES_FILE).column("case_id").to_pylist()
    assert len(cases) >= 3
    for case in cases:
        told = _go_back(card, root, folder, case, tmp_path / case)
        label = sitk.ReadImage(str(root / f"TrainingSet/labels/{case}.nii.gz"))
        _check_nifti(told, tmp_path / case, label, {"anterior hippocampus": 1, "posterior hippocampus": 2})


def test_flipped_anisotropic_nrrd_comes_back_exactly(mirror: Path, tmp_path: Path) -> None:
    card, root = load_card("pyradiomics"), mirror / "pyradiomics"
    folder = _build(card, root, tmp_path / "data")
    for case, concept in (("brain1", "brain lesion"), ("breast1", "breast lesion")):
        told = _go_back(card, root, folder, case, tmp_path / case)
        [path] = root.rglob(f"{case}_label.nrrd")
        _check_nifti(told, tmp_path / case, sitk.ReadImage(str(path)), {concept: 1})


def _uids(folder: Path) -> list[str]:
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in sorted(folder.glob("*.dcm"))]
    return [str(one.SOPInstanceUID) for one in sorted(headers, key=lambda one: float(one.ImagePositionPatient[2]))]


def _segments(path: Path, uids: list[str]) -> dict[str, Array]:
    """Masks of a SEG by label in lower case, in the order of `uids`, through highdicom alone."""
    import highdicom

    seg = highdicom.seg.segread(str(path))
    numbers = [int(item.SegmentNumber) for item in seg.SegmentSequence if int(item.SegmentNumber)]
    stack = seg.get_pixels_by_source_instance(
        source_sop_instance_uids=uids,
        segment_numbers=numbers,
        assert_missing_frames_are_empty=True,
        ignore_spatial_locations=True,
    )
    labels = [seg.get_segment_description(number).segment_label.lower() for number in numbers]
    return {label: stack[..., index].astype(bool) for index, label in enumerate(labels)}


def test_dicom_phantoms_go_back_as_seg_and_nifti(ct: Version, tmp_path: Path) -> None:
    card, root, folder = ct
    for case, place in (("patient_01_series_1", "patient_01/series_1"), ("patient_02_series_1", "patient_02/series_1")):
        told = _go_back(card, root, folder, case, tmp_path / case)
        uids = _uids(root / place / "ct")
        [source] = (root / place / "seg").glob("*.dcm")
        truth, found = _segments(source, uids), _segments(tmp_path / case / told["dicom_seg"], uids)
        assert {one: _dice(mask, truth[one]) for one, mask in found.items()} == dict.fromkeys(truth, 1.0)
        seg = pydicom.dcmread(tmp_path / case / told["dicom_seg"])
        image = pydicom.dcmread(next((root / place / "ct").glob("*.dcm")), stop_before_pixels=True)
        assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == image.SeriesInstanceUID
        assert (seg.PatientID, seg.StudyInstanceUID) == (image.PatientID, image.StudyInstanceUID)
        assert seg.FrameOfReferenceUID == image.FrameOfReferenceUID
        assert {one.SegmentAlgorithmType for one in seg.SegmentSequence} == {"AUTOMATIC"}
        said = seg.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
        assert (said.AlgorithmName, said.AlgorithmVersion) == ("Segfoundry SAM3", "7")
        # 96 x 96 bits are whole bytes, which ITK's reader needs
        frames = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / case / told["dicom_seg"])))
        assert int((frames > 0).sum()) == sum(told["voxels"].values())
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(root / place / "ct")))
        volume = reader.Execute()
        for concept, file in told["files"].items():
            nifti = sitk.ReadImage(str(tmp_path / case / file))
            assert np.allclose(nifti.GetOrigin(), volume.GetOrigin(), atol=1e-3)
            assert np.allclose(nifti.GetSpacing(), volume.GetSpacing(), atol=1e-4)
            assert np.array_equal(sitk.GetArrayFromImage(nifti) == 1, truth[concept])


def test_overlapping_segments_of_real_seg_come_back_whole(dcmqi: Version, tmp_path: Path) -> None:
    card, root, folder = dcmqi
    target = tmp_path / "out"
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        told = _go_back(card, root, folder, "segmentations_ct-3slice", target)
    patient = str(pydicom.dcmread(next((root / "segmentations/ct-3slice").glob("*.dcm"))).PatientName)
    assert patient
    assert not any(patient in str(one.message) for one in warned), "a log that names the patient"
    uids = _uids(root / "segmentations/ct-3slice")
    found = _segments(target / told["dicom_seg"], uids)
    names = dict(card.labels.names)  # type: ignore[union-attr]
    expected: dict[str, Array] = {}
    for file in ("liver.dcm", "partial_overlaps.dcm"):
        for label, mask in _segments(root / "segmentations" / file, uids).items():
            expected[names[label]] = expected.get(names[label], np.zeros_like(mask)) | mask
    assert {one: _dice(mask, expected[one]) for one, mask in found.items()} == dict.fromkeys(expected, 1.0)
    assert (found["green test region"] & found["orange test region"]).any()
    seg = pydicom.dcmread(target / told["dicom_seg"])
    liver = next(one for one in seg.SegmentSequence if one.SegmentLabel == "liver")
    code = liver.SegmentedPropertyTypeCodeSequence[0]
    assert (code.CodeValue, code.CodingSchemeDesignator) == ("10200004", "SCT")


def test_truth_is_said_to_be_drawn_by_people_and_writes_the_same_bytes_of_masks(dcmqi: Version, tmp_path: Path) -> None:
    card, root, folder = dcmqi
    uids = []
    for name in ("a", "b"):
        options: dict[str, Any] = {"root": root, "pseudonym_key": KEY}
        back(folder, card, "segmentations_24x38x3_image", tmp_path / name, **options)
        seg = pydicom.dcmread(tmp_path / name / "segmentation.dcm")
        assert seg.SegmentSequence[0].SegmentAlgorithmType == "MANUAL"
        uids.append((seg.SOPInstanceUID, seg.PixelData))
    assert uids[0] == uids[1]
    assert (tmp_path / "a/01_liver.nii.gz").read_bytes() == (tmp_path / "b/01_liver.nii.gz").read_bytes()


def test_an_enhanced_multiframe_series_is_a_source_too(dcmqi: Version, tmp_path: Path) -> None:
    import highdicom

    _card, root, folder = dcmqi
    masks, case_row = original_masks(folder, "segmentations_24x38x3_image")
    source = root / "segmentations/24x38x3/multiframe/mf.dcm"
    write_dicom_seg(masks, [source], case_row, DRAWN, tmp_path / "seg.dcm")
    seg = highdicom.seg.segread(str(tmp_path / "seg.dcm"))
    frames = seg.get_pixels_by_source_frame(
        str(pydicom.dcmread(source, stop_before_pixels=True).SOPInstanceUID),
        [1, 2, 3],
        assert_missing_frames_are_empty=True,
        ignore_spatial_locations=True,
    )
    header = pydicom.dcmread(source, stop_before_pixels=True).PerFrameFunctionalGroupsSequence
    depth = [float(one.PlanePositionSequence[0].ImagePositionPatient[2]) for one in header]
    in_frames = masks["liver"][np.argsort(np.argsort(depth))]
    assert in_frames.any()
    assert np.array_equal(frames[..., 0].astype(bool), in_frames)


def test_pictures_come_back_under_their_pseudonyms(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    for index in range(3):
        draw(root, f"case{index}", index)
    card = replace(FLAT, public=False)
    folder = _build(card, root, tmp_path / "data")
    case = pq.read_table(folder / schema.CASES_FILE).column("case_id").to_pylist()[0]
    told = _go_back(card, root, folder, case, tmp_path / "out")
    found = np.asarray(Image.open(tmp_path / "out" / told["files"]["polyp"]))
    truths = [np.asarray(Image.open(path)) for path in sorted((root / "masks").iterdir())]
    assert any(np.array_equal(found, truth) for truth in truths)
    assert not any("case" in path.name for path in (tmp_path / "out").iterdir())


def _spoil_size(lines: list[dict[str, Any]]) -> None:
    lines[1]["rle"] = "52203"


def _spoil_column(lines: list[dict[str, Any]]) -> None:
    del lines[1]["rle"]


def _other_dataset(lines: list[dict[str, Any]]) -> None:
    for line in lines:
        line["sample_id"] = "other/" + line["sample_id"]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_spoil_size, r"line 2: made_up/case.: expected a mask of 40 x 50 pixels"),
        (_spoil_column, "line 2: expected sample_id, concept and rle"),
        (_other_dataset, "found none among"),
    ],
)
def test_predictions_that_do_not_fit_are_refused(
    spoil: Callable[[list[dict[str, Any]]], None], words: str, tmp_path: Path
) -> None:
    draw(tmp_path / "raw", "case1", 1)
    folder = _build(FLAT, tmp_path / "raw", tmp_path / "data")
    path = _predictions(folder, tmp_path / "masks.jsonl")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    spoil(lines)
    path.write_text("\n".join(map(json.dumps, lines)))
    options: dict[str, Any] = {"root": None, "pseudonym_key": KEY, "predictions": path}
    with pytest.raises(DataError, match=words):
        back(folder, FLAT, "case1", tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
    with pytest.raises(UsageError, match="near: case1"):
        back(folder, FLAT, "case2", tmp_path / "out", **options)


def test_a_series_that_is_not_the_one_ingested_is_refused(ct: Version, tmp_path: Path) -> None:
    card, root, folder = ct
    root = Path(shutil.copytree(root, tmp_path / "raw"))
    file = next((root / "patient_01/series_1/ct").glob("*.dcm"))
    file.write_bytes(file.read_bytes() + b"\0\0")
    with pytest.raises(DataError, match=f"{file.name}: expected the file that the version was made of"):
        back(folder, card, "patient_01_series_1", tmp_path / "out", root=root, pseudonym_key=KEY)
    assert not (tmp_path / "out").exists()


def test_a_series_off_its_grid_goes_back_as_nifti_alone(ct: Version, tmp_path: Path) -> None:
    card, root, folder = ct
    folder = Path(shutil.copytree(folder, tmp_path / "data"))
    cases = pq.read_table(folder / schema.CASES_FILE)
    rows = cases.to_pylist()
    rows[0]["original_spacing_mm_xyz"][2] *= 1.1  # as a resampled stack would be
    pq.write_table(pa.Table.from_pylist(rows, schema=schema.CASES_SCHEMA), folder / schema.CASES_FILE)
    told = back(folder, card, rows[0]["case_id"], tmp_path / "out", root=root, pseudonym_key=KEY)
    assert "expected a source image at each of" in told["no_dicom_seg"]
    assert not (tmp_path / "out/segmentation.dcm").exists()
    assert len(list((tmp_path / "out").glob("*.nii.gz"))) == 2
