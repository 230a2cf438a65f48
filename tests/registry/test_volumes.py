"""Volumes in, volumes out on their own grid: an asymmetric oblique phantom comes back in place, exactly."""

from __future__ import annotations

import base64
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pycocotools import mask as coco

from infra.errors import SegfoundryError, UsageError
from infra.storage import write_json
from registry.predictor import Predictor
from tests.made_dicom import series
from tests.registry import samples

ORIENTATIONS = ("LPS", "RAS", "LSP", "SRP", "ASL", "PIR")


def phantom() -> tuple[np.ndarray, np.ndarray]:
    """Intensities (z, y, x) of an MR-like volume, and its bright part, which no mirroring maps onto itself."""
    z, y, x = np.indices((9, 24, 20))
    values = (40 + x + y + z).astype(np.int16)
    bright = np.zeros(values.shape, dtype=bool)
    bright[1:5, 3:11, 12:19] = True
    bright[7, 15:23, 2:4] = True
    bright[1, 3, 4] = True
    values[bright] = 900
    return values, bright


def placed(array: np.ndarray, spacing: tuple[float, ...] = (0.7, 0.5, 2.0)) -> sitk.Image:
    """`array` (z, y, x) turned about two axes, off the origin."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    image.SetOrigin((-10.0, 20.0, 5.0))
    turn = sitk.Euler3DTransform((0.0, 0.0, 0.0), 0.2, -0.15, 0.35)
    image.SetDirection(turn.GetMatrix())
    return image


@pytest.fixture
def predictor(tmp_path: Path) -> Predictor:
    return Predictor.load(samples.write_candidate(tmp_path / "candidate"))


def mask_of(answer: dict[str, Any]) -> np.ndarray:
    mask = np.zeros(answer["size"], dtype=bool)
    for one in answer["slices"]:
        mask[one["index"]] = coco.decode(one["rle"])
    return mask


@pytest.mark.parametrize("code", ORIENTATIONS)
@pytest.mark.parametrize("axis", ["auto", "x"])
def test_an_oblique_volume_stored_in_any_orientation_comes_back_in_place(
    predictor: Predictor, tmp_path: Path, code: str, axis: str
):
    values, bright = phantom()
    image = sitk.DICOMOrient(placed(values), code)
    truth = sitk.GetArrayFromImage(sitk.DICOMOrient(placed(bright.astype(np.uint8)), code)).astype(bool)
    sitk.WriteImage(image, str(tmp_path / "i.nii.gz"))
    row = {"image": str(tmp_path / "i.nii.gz"), "prompt": ["bright spot", "no such thing"]}
    found, nothing = predictor.predict(row, {"axis": axis, "intensity": "window:0:1000"})
    assert (found["kind"], found["axes"], tuple(found["size"])) == ("volume", "zyx", truth.shape)
    assert np.array_equal(mask_of(found), truth)
    assert nothing["slices"] == []
    assert found["intensity"] == {"rule": "window", "limits": [0.0, 1000.0], "low": 0.0, "high": 1000.0}
    assert found["geometry"]["spacing_mm_xyz"] == pytest.approx(image.GetSpacing(), rel=1e-6)
    # as a file it lies where the image lies, voxel for voxel
    [filed] = predictor.predict({**row, "prompt": "bright spot"}, {"masks": "file", "intensity": "window:0:1000"})
    (tmp_path / "m.nii.gz").write_bytes(base64.b64decode(filed["file"]))
    back, given = sitk.ReadImage(str(tmp_path / "m.nii.gz")), sitk.ReadImage(str(tmp_path / "i.nii.gz"))
    assert back.GetSize() == given.GetSize()
    for one, other in (
        (back.GetSpacing(), given.GetSpacing()),
        (back.GetOrigin(), given.GetOrigin()),
        (back.GetDirection(), given.GetDirection()),
    ):
        assert one == pytest.approx(other, abs=1e-5)
    assert np.array_equal(sitk.GetArrayFromImage(back).astype(bool), truth)


def test_every_form_of_a_volume_is_the_same_volume(predictor: Predictor, tmp_path: Path):
    values, bright = phantom()
    image = placed(values)
    answers = []
    for name in ("i.nii", "i.nii.gz", "i.nrrd", "i.mha"):
        sitk.WriteImage(image, str(tmp_path / name))
        payload = (tmp_path / name).read_bytes()
        for form in (tmp_path / name, payload, base64.b64encode(payload).decode()):
            answers += predictor.predict({"image": form, "prompt": "bright spot"})
    volume = {"volume": values, "spacing_mm_zyx": [2.0, 0.5, 0.7], "origin_mm_xyz": image.GetOrigin(),
              "direction": image.GetDirection()}  # fmt: skip
    as_json = {**volume, "volume": values.tolist(), "direction": list(image.GetDirection())}
    for form in (volume, as_json):
        answers += predictor.predict({"image": form, "prompt": "bright spot"})
    for answer in answers:
        assert np.array_equal(mask_of(answer), bright)
        assert answer["geometry"]["spacing_mm_xyz"] == pytest.approx([0.7, 0.5, 2.0], abs=1e-6)
    # without a spacing nothing is known but the order of slices
    [bare] = predictor.predict({"image": {"volume": values}, "prompt": "bright spot"})
    assert "geometry" not in bare
    assert np.array_equal(mask_of(bare), bright)


def dicom_folder(folder: Path, values: np.ndarray, modality: str = "MR") -> Path:
    def named(_: int, header: pydicom.Dataset) -> None:
        header.Modality = modality

    series(folder, values, change=named)
    return folder


def test_a_dicom_series_comes_as_a_folder_or_as_a_zip_and_a_seg_goes_back_to_it(predictor: Predictor, tmp_path: Path):
    import highdicom

    values, bright = phantom()
    folder = dicom_folder(tmp_path / "series", values)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, path.name)
    for form in (folder, str(folder), packed.getvalue(), base64.b64encode(packed.getvalue()).decode()):
        [answer] = predictor.predict({"image": form, "prompt": "bright spot"})
        assert np.array_equal(mask_of(answer), bright)
    scene, [result] = predictor.segment(folder, ["bright spot"])
    scene.write_dicom_seg({"bright spot": result["mask"]}, "segfoundry-sam3", "3", tmp_path / "seg.dcm")
    seg = highdicom.seg.segread(tmp_path / "seg.dcm")
    slices = {
        pydicom.dcmread(path).SOPInstanceUID: float(pydicom.dcmread(path).ImagePositionPatient[2])
        for path in folder.iterdir()
    }
    ordered = sorted(slices, key=slices.__getitem__)
    frames = seg.get_pixels_by_source_instance(ordered, combine_segments=False, ignore_spatial_locations=True)
    assert np.array_equal(frames[..., 0].astype(bool), bright)
    assert seg.SegmentSequence[0].SegmentLabel == "bright spot"


@pytest.mark.parametrize(("modality", "rule"), [("CT", "window"), ("MR", "percentile")])
def test_ct_is_windowed_and_mr_is_scaled_by_percentiles(predictor: Predictor, tmp_path: Path, modality: str, rule: str):
    values, _ = phantom()
    [answer] = predictor.predict({"image": dicom_folder(tmp_path / "s", values, modality), "prompt": "vessel"})
    limits = {"window": [-160.0, 240.0], "percentile": [0.5, 99.5]}[rule]
    assert (answer["intensity"]["rule"], answer["intensity"]["limits"]) == (rule, limits)
    # air says so where a file does not
    sitk.WriteImage(placed(np.where(values < 60, -1000, values).astype(np.int16)), str(tmp_path / "ct.nii"))
    [told] = predictor.predict({"image": tmp_path / "ct.nii", "prompt": "vessel"})
    assert told["intensity"]["rule"] == "window"


def test_the_rules_of_the_training_data_are_the_default_and_can_be_named(tmp_path: Path):
    candidate = samples.write_candidate(tmp_path / "candidate")
    window = {"rule": "window", "limits": [-1000.0, 400.0], "windows": []}
    mr = {"rule": "percentile", "limits": [1.0, 99.0], "windows": []}
    write_json(
        candidate / "serving.json",
        {
            "reader": "preprocessing.serving:Reader",
            "orientation": "LPS",
            "datasets": {
                "Lungs": {"modality": "CT", "samples": 900, "intensity": window, "axes": ["y"]},
                "Livers": {"modality": "CT", "samples": 100, "intensity": {**window, "limits": [-160.0, 240.0]}},
                "Heads": {"modality": "MR", "samples": 10, "intensity": mr, "spacing_mm_zyx": [1.0, 0, 0]},
            },
        },
    )
    predictor = Predictor.load(candidate)
    values, bright = phantom()
    sitk.WriteImage(placed(values), str(tmp_path / "i.nii"))
    folder = dicom_folder(tmp_path / "s", values, "CT")
    used = lambda image, **params: predictor.predict({"image": image, "prompt": "vessel"}, params)[0]["intensity"]  # noqa: E731
    assert used(folder)["limits"] == [-1000.0, 400.0]  # most of the training slices of CT were read so
    assert used(folder, like="Livers")["limits"] == [-160.0, 240.0]
    assert used(folder, like="Livers", intensity="window:0:80")["limits"] == [0.0, 80.0]
    assert used(tmp_path / "i.nii")["limits"] == [1.0, 99.0]
    # a set that training resampled to 1 mm slices is served at 1 mm, and the masks come back to the 2 mm grid
    [answer] = predictor.predict(
        {"image": tmp_path / "i.nii", "prompt": "bright spot"}, {"like": "Heads", "intensity": "window:0:1000"}
    )
    assert tuple(answer["size"]) == bright.shape
    overlap = 2 * (mask_of(answer) & bright).sum() / (mask_of(answer).sum() + bright.sum())
    assert overlap > 0.95
    with pytest.raises(UsageError, match=r"like: expected a dataset .*Heads, Livers, Lungs.*found 'Knees'"):
        predictor.predict({"image": folder, "prompt": "vessel"}, {"like": "Knees"})


@pytest.mark.parametrize(
    "params", [{"intensity": "bright"}, {"intensity": "window:5:1"}, {"intensity": "percentile:1:200"}, {"axis": "w"}]
)
def test_a_parameter_that_means_nothing_is_refused(predictor: Predictor, params: dict[str, str]):
    with pytest.raises(UsageError, match=f"{next(iter(params))}: expected"):
        predictor.predict({"image": samples.picture(), "prompt": "vessel"}, params)


def test_what_is_no_single_series_and_no_single_volume_is_said(predictor: Predictor, tmp_path: Path):
    values, _ = phantom()
    folder = dicom_folder(tmp_path / "s", values)
    other = dicom_folder(tmp_path / "other", values)
    for path in other.iterdir():
        header = pydicom.dcmread(path)
        header.SeriesInstanceUID = "1.2.3"
        header.save_as(folder / f"other-{path.name}", enforce_file_format=True)
    four = sitk.JoinSeries([placed(values), placed(values)])
    sitk.WriteImage(four, str(tmp_path / "four.nii"))
    (tmp_path / "empty").mkdir()
    for image, word in (
        (folder, "s: expected a folder with the slices of one DICOM series, found 2 image series"),
        (tmp_path / "empty", "no DICOM image"),
        (tmp_path / "four.nii", "four.nii: .*frame, counted from 0"),
    ):
        with pytest.raises(SegfoundryError, match=word):
            predictor.predict({"image": image, "prompt": "vessel"})
    assert predictor.predict({"image": tmp_path / "four.nii", "prompt": "vessel"}, {"frame": 1})
