"""A DICOM-SEG lands on the voxels that it names, whatever its kind, orientation, or order of frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset

from infra.errors import CaseError
from preprocessing.harmonize import geometry
from preprocessing.readers.dicom import read_series
from preprocessing.readers.nifti_family import read_volume
from preprocessing.readers.seg import read_segments
from tests.made_dicom import enhanced, phantom, rewritten, series
from tests.made_seg import TYPES, masks, segmentation, sorted_sources


@pytest.fixture
def scan(tmp_path: Path) -> list[Path]:
    return series(tmp_path / "ct", phantom())


def found_in(path: Path, scan: list[Path], **options: Any) -> dict[str, np.ndarray]:
    read = read_series(scan)
    return read_segments(path, read.uids, read.image, **options)


def test_overlapping_segments_are_kept_apart(tmp_path: Path, scan: list[Path]) -> None:
    made = segmentation(sorted_sources(scan), masks(), TYPES.BINARY)
    assert made.NumberOfFrames < 2 * len(scan)  # empty frames are left out
    made.save_as(tmp_path / "seg.dcm")
    found = found_in(tmp_path / "seg.dcm", scan)
    assert sorted(found) == ["part 1", "part 2"]
    for number in (1, 2):
        assert np.array_equal(found[f"part {number}"], masks()[..., number - 1] > 0)
    theirs = highdicom.seg.segread(str(tmp_path / "seg.dcm")).get_pixels_by_source_instance(
        source_sop_instance_uids=read_series(scan).uids, assert_missing_frames_are_empty=True
    )
    assert np.array_equal(theirs[..., 1] > 0, found["part 2"])


def test_a_label_map_says_the_same(tmp_path: Path, scan: list[Path]) -> None:
    parts = masks()
    parts[..., 0] &= 1 - parts[..., 1]
    segmentation(sorted_sources(scan), parts, TYPES.LABELMAP).save_as(tmp_path / "seg.dcm")
    found = found_in(tmp_path / "seg.dcm", scan)
    for number in (1, 2):
        assert np.array_equal(found[f"part {number}"], parts[..., number - 1] > 0)


@pytest.mark.parametrize("threshold", [0.25, 0.5, 0.9])
def test_a_fractional_segment_holds_from_the_threshold_on(tmp_path: Path, scan: list[Path], threshold: float) -> None:
    share = np.zeros((*phantom().shape, 2), dtype=np.float64)
    share[2, 4, 3:8, 0] = (0.2, 0.4, 0.5, 0.8, 1.0)
    share[3, 4, 3:8, 1] = (1.0, 0.9, 0.0, 0.1, 0.6)
    made = segmentation(sorted_sources(scan), share, TYPES.FRACTIONAL, max_fractional_value=200)
    made.save_as(tmp_path / "seg.dcm")
    found = found_in(tmp_path / "seg.dcm", scan, threshold=threshold)
    for number in (1, 2):
        assert np.array_equal(found[f"part {number}"], share[..., number - 1] >= threshold)


def test_frames_of_another_order_and_orientation_land_where_they_lie(tmp_path: Path, scan: list[Path]) -> None:
    """The same segmentation written by a program that flips rows, swaps axes and stores slices backwards."""
    segmentation(sorted_sources(scan), masks(), TYPES.BINARY).save_as(tmp_path / "seg.dcm")

    def turn(made: Dataset) -> None:
        frames = made.pixel_array
        rows, columns = frames.shape[1:]
        shared = made.SharedFunctionalGroupsSequence[0]
        spacing = [float(each) for each in shared.PixelMeasuresSequence[0].PixelSpacing]
        # new row index = old column, new column index = rows - 1 - old row
        turned = np.ascontiguousarray(np.transpose(frames, (0, 2, 1))[:, :, ::-1])[::-1]
        shared.PlaneOrientationSequence[0].ImageOrientationPatient = [0, -1, 0, 1, 0, 0]
        shared.PixelMeasuresSequence[0].PixelSpacing = spacing[::-1]
        groups = list(made.PerFrameFunctionalGroupsSequence)[::-1]
        for group in groups:
            place = [float(each) for each in group.PlanePositionSequence[0].ImagePositionPatient]
            place[1] += (rows - 1) * spacing[0]
            group.PlanePositionSequence[0].ImagePositionPatient = place
        made.PerFrameFunctionalGroupsSequence = groups
        made.Rows, made.Columns = columns, rows
        made.PixelData = pydicom.pixels.utils.pack_bits(turned.astype(np.uint8).ravel())

    rewritten(tmp_path / "seg.dcm", turn)
    found = found_in(tmp_path / "seg.dcm", scan)
    for number in (1, 2):
        assert np.array_equal(found[f"part {number}"], masks()[..., number - 1] > 0)


def test_a_part_of_the_field_of_view_is_put_at_its_place(tmp_path: Path, scan: list[Path]) -> None:
    crop = []
    for made in sorted_sources(scan):
        pixels = made.pixel_array[3:12, 2:9]
        made.ImagePositionPatient[0] = float(made.ImagePositionPatient[0]) + 2 * 0.7
        made.ImagePositionPatient[1] = float(made.ImagePositionPatient[1]) + 3 * 0.5
        made.Rows, made.Columns = pixels.shape
        made.PixelData = pixels.tobytes()
        crop.append(made)
    inside = masks()[:, 3:12, 2:9]
    segmentation(crop, inside, TYPES.BINARY).save_as(tmp_path / "seg.dcm")
    found = found_in(tmp_path / "seg.dcm", scan)
    wanted = np.zeros(phantom().shape, dtype=bool)
    wanted[:, 3:12, 2:9] = inside[..., 0] > 0
    assert np.array_equal(found["part 1"], wanted)


def test_a_grid_beside_the_voxels_is_refused(tmp_path: Path, scan: list[Path]) -> None:
    segmentation(sorted_sources(scan), masks(), TYPES.BINARY).save_as(tmp_path / "seg.dcm")

    def shift(made: Dataset) -> None:
        for group in made.PerFrameFunctionalGroupsSequence:
            place = group.PlanePositionSequence[0].ImagePositionPatient
            place[0] = float(place[0]) + 0.3

    rewritten(tmp_path / "seg.dcm", shift)
    with pytest.raises(CaseError, match=r"mask_grid.*voxels beside"):
        found_in(tmp_path / "seg.dcm", scan)


def test_marks_outside_the_series_and_missing_slices_are_refused(tmp_path: Path, scan: list[Path]) -> None:
    made = segmentation(sorted_sources(scan), masks(), TYPES.BINARY)
    made.save_as(tmp_path / "seg.dcm")
    fewer = scan[:0] + [path for path in scan if int(pydicom.dcmread(path).InstanceNumber) <= 5]
    with pytest.raises(CaseError, match=r"unknown_slice"):
        found_in(tmp_path / "seg.dcm", fewer)
    for group in made.PerFrameFunctionalGroupsSequence:
        if "DerivationImageSequence" in group:
            del group.DerivationImageSequence
    made.save_as(tmp_path / "bare.dcm")
    with pytest.raises(CaseError, match=r"mask_grid.*outside"):
        found_in(tmp_path / "bare.dcm", fewer)
    assert np.array_equal(found_in(tmp_path / "bare.dcm", scan)["part 1"], masks()[..., 0] > 0)


def test_a_segmentation_of_a_multi_frame_object(tmp_path: Path, scan: list[Path]) -> None:
    whole = enhanced(tmp_path / "mf.dcm", phantom(), order=[3, 1, 0, 2, 8, 7, 6, 5, 4])
    made = segmentation(sorted_sources(scan), masks(), TYPES.BINARY)
    for group in made.PerFrameFunctionalGroupsSequence:
        for source in group.DerivationImageSequence[0].SourceImageSequence:
            source.ReferencedSOPInstanceUID = pydicom.dcmread(whole).SOPInstanceUID
    made.save_as(tmp_path / "seg.dcm")
    assert np.array_equal(found_in(tmp_path / "seg.dcm", [whole])["part 2"], masks()[..., 1] > 0)


def test_a_volume_that_was_converted_takes_the_segmentation_by_its_place(tmp_path: Path, scan: list[Path]) -> None:
    segmentation(sorted_sources(scan), masks(), TYPES.BINARY).save_as(tmp_path / "seg.dcm")
    sitk.WriteImage(geometry.orient(read_series(scan).image, "RAI"), str(tmp_path / "i.nii.gz"))
    converted = read_volume(tmp_path / "i.nii.gz")
    assert converted.GetDirection() != read_series(scan).image.GetDirection()
    found = sitk.GetImageFromArray(read_segments(tmp_path / "seg.dcm", [], converted)["part 1"].astype(np.uint8))
    found.CopyInformation(converted)
    assert np.array_equal(sitk.GetArrayFromImage(geometry.orient(found, "LPS")), masks()[..., 0])


def test_a_tilted_series_takes_its_segmentation_along(tmp_path: Path) -> None:
    scan = series(tmp_path / "ct", phantom(), tilt_mm=(0.0, 0.4))
    sources = sorted_sources(scan)
    made = segmentation(sources, masks(), TYPES.BINARY)
    made.save_as(tmp_path / "seg.dcm")
    assert np.array_equal(found_in(tmp_path / "seg.dcm", scan)["part 1"], masks()[..., 0] > 0)


def test_the_real_segmentations_are_those_that_highdicom_reads(mirror: Path) -> None:
    home = mirror / "dcmqi/segmentations"
    read = read_series(sorted((home / "ct-3slice").glob("*.dcm")))
    for name in ("liver.dcm", "partial_overlaps.dcm"):
        theirs = highdicom.seg.segread(str(home / name))
        numbers = [int(item.SegmentNumber) for item in theirs.SegmentSequence]
        stack = theirs.get_pixels_by_source_instance(
            source_sop_instance_uids=read.uids,
            segment_numbers=numbers,
            assert_missing_frames_are_empty=True,
            ignore_spatial_locations=True,
        )
        found = read_segments(home / name, read.uids, read.image)
        for at, item in enumerate(theirs.SegmentSequence):
            assert np.array_equal(stack[..., at] > 0, found[str(item.SegmentLabel).lower()])
    image = read_series([mirror / "highdicom/test_files/ct_image.dcm"])
    found = read_segments(mirror / "highdicom/test_files/seg_image_ct_binary_single_frame.dcm", image.uids, image.image)
    assert found["first segment"].sum() == 1832
