"""DICOM series through pydicom, DICOM-SEG through highdicom.

A series is sorted by position along its normal; slices must share one orientation and lie evenly.
Nothing of a header but geometry, UIDs and the patient's id (hashed before it is written) is kept.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK as sitk
from numpy.typing import NDArray

from infra.errors import CaseError
from preprocessing.cards import DatasetCard, RawCase
from preprocessing.pairing import clean_id, files_below, group_of, why_not_data
from preprocessing.readers import MAX_VOXELS, decoding, too_large
from preprocessing.readers.nifti_family import check_spacing

_HEADER = ["SeriesInstanceUID", "PatientID", "ReferencedSeriesSequence", "SOPClassUID"]
_POSITION_TOLERANCE = 0.01  # share of the slice distance by which a slice may lie off the even grid


def find_dicom_cases(card: DatasetCard, root: Path) -> Iterator[RawCase]:
    """Series below `root` (the card's image expressions) with the SEGs (label expressions) that reference them.

    The group is the patient id. A file without a readable header is a case of its own folder, so that
    it reaches quarantine with its reason.
    """
    series: dict[str, list[str]] = {}
    segs: dict[str, list[str]] = {}
    patients: dict[str, str] = {}
    for file in files_below(root):
        is_image = any(re.fullmatch(layout.image, file) for layout in card.layouts)
        is_label = any(layout.label and re.fullmatch(layout.label, file) for layout in card.layouts)
        if why_not_data(card, file) or not (is_image or is_label):
            continue
        try:
            with decoding(root / file, "a DICOM header"):
                header = pydicom.dcmread(root / file, stop_before_pixels=True, specific_tags=_HEADER)
                references = header.get("ReferencedSeriesSequence") or []
                own = str(header.get("SeriesInstanceUID") or f"file:{file}")
                uid = own if is_image else str(references[0].SeriesInstanceUID) if references else f"file:{file}"
                patients.setdefault(uid, str(header.get("PatientID") or ""))
        except CaseError:
            uid = f"folder:{Path(file).parent}"
        (series if is_image else segs).setdefault(uid, []).append(file)
    folders = [str(Path(files[0]).parent) for files in series.values()]
    cases = []
    for uid in sorted({*series, *segs}):
        images, labels = series.get(uid, []), segs.get(uid, [])
        home = str(Path(images[0]).parent) if images else str(Path(labels[0]).with_suffix(""))
        case_id = clean_id(home if folders.count(home) < 2 else f"{home}-{uid[-8:]}")
        group = patients.get(uid) or group_of(card, case_id)
        cases.append(RawCase(case_id, group, tuple(images), tuple(labels)))
    yield from sorted(cases, key=lambda case: case.case_id)


def read_series(paths: list[Path]) -> tuple[sitk.Image, list[str]]:
    """Read one series: the volume in modality units (HU for CT) and the SOP instance UIDs in slice order.

    MONOCHROME1 is turned so that larger means brighter. Raises CaseError, whose `file` is the path of the
    slice at fault: `unreadable`, `series`, `missing_slice`, `duplicate_slice`, `dimensions`, `spacing`, `too_large`.
    """
    slices = []
    for path in paths:
        with _slice_at_fault(path), decoding(path, "a DICOM image"):
            slices.append(pydicom.dcmread(path))
    first = slices[0]
    with _slice_at_fault(paths[0]), decoding(paths[0], "DICOM geometry"):
        if first.get("ImagePositionPatient") is None or int(first.get("NumberOfFrames") or 1) > 1:
            raise CaseError("dimensions", "single-frame slices with a position", "a file of another kind")
        rows, columns = int(first.Rows), int(first.Columns)
        cosines = np.array(_numbers(first, "ImageOrientationPatient", 6))
        spacing_yx = _numbers(first, "PixelSpacing", 2)
    if rows * columns * len(slices) > MAX_VOXELS:
        raise too_large(rows * columns * len(slices), MAX_VOXELS, "voxels")
    normal = np.cross(cosines[:3], cosines[3:])
    placed, uids = [], []
    for path, item in zip(paths, slices, strict=True):
        with _slice_at_fault(path), decoding(path, "DICOM geometry"):
            other = np.array(_numbers(item, "ImageOrientationPatient", 6))
            shape = (int(item.Rows), int(item.Columns))
            if shape != (rows, columns) or np.abs(other - cosines).max() > 1e-3:
                raise CaseError(
                    "series",
                    expected=f"slices of {rows} x {columns} pixels in one orientation",
                    found=f"a slice of {shape[0]} x {shape[1]} or of another orientation",
                )
            placed.append(_numbers(item, "ImagePositionPatient", 3))
            uids.append(str(item.SOPInstanceUID))
    positions = np.array(placed)
    depth = positions @ normal
    order = np.argsort(depth, kind="stable")
    with _slice_at_fault(paths[0]), decoding(paths[0], "DICOM geometry"):
        distance = _slice_distance(depth[order], first)
    check_spacing((*spacing_yx, distance))
    pixels = np.stack([_pixels(slices[index], paths[index]) for index in order])
    with decoding(paths[0], "DICOM geometry"):  # ITK refuses axes that are not at right angles
        image = sitk.GetImageFromArray(pixels)
        image.SetSpacing([spacing_yx[1], spacing_yx[0], distance])
        image.SetOrigin(positions[order[0]].tolist())
        image.SetDirection(np.stack([cosines[:3], cosines[3:], normal], axis=1).ravel().tolist())
    return image, [uids[index] for index in order]


@contextmanager
def _slice_at_fault(path: Path) -> Iterator[None]:
    """Name the slice in a CaseError: of hundreds, the series' first file would send the reader to a sound one."""
    try:
        yield
    except CaseError as error:
        error.file = str(path)
        raise


def _numbers(item: Any, tag: str, count: int) -> list[float]:
    """`count` finite numbers of a tag; ValueError, which `decoding` turns into a refusal, where it holds another thing.

    NaN is refused here because it passes every comparison that follows.
    """
    value = item.get(tag)
    if value is None:
        msg = f"no {tag}"
        raise ValueError(msg)
    numbers = [float(part) for part in value]
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        msg = f"{tag} is {numbers}, not {count} finite numbers"
        raise ValueError(msg)
    return numbers


def read_segments(path: Path, uids: list[str], shape_zyx: tuple[int, int, int]) -> dict[str, NDArray[np.bool_]]:
    """Masks (z, y, x) of a DICOM-SEG on the grid of the series `uids`, by segment label in lower case.

    Segments may overlap. Slices that the SEG leaves out are empty. Raises CaseError: `unreadable`,
    `mask_size`, `segmentation_type`, `unknown_slice`.
    """
    import highdicom  # a fifth of a second, and most datasets have no DICOM-SEG

    with decoding(path, "a DICOM-SEG"):
        seg = highdicom.seg.segread(str(path))
        kind = str(seg.SegmentationType)
        size = (int(seg.Rows), int(seg.Columns))
        labels = {int(item.SegmentNumber): str(item.SegmentLabel).strip().lower() for item in seg.SegmentSequence}
    if kind not in ("BINARY", "LABELMAP"):
        raise CaseError("segmentation_type", expected="a BINARY or LABELMAP segmentation", found=kind)
    if size != shape_zyx[1:]:
        raise CaseError(
            "mask_size",
            expected=f"{shape_zyx[1]} x {shape_zyx[2]} pixels (rows x columns), as the series",
            found=f"{size[0]} x {size[1]}",
        )
    numbers = [number for number in labels if number > 0]
    with decoding(path, "DICOM-SEG frames"):
        referenced = {str(uids_of[2]) for uids_of in seg.get_source_image_uids()}
        if not referenced <= set(uids):
            raise CaseError(
                "unknown_slice",
                expected="frames that belong to slices of the series",
                found=f"{len(referenced - set(uids))} frame(s) of slices that are not there",
            )
        stack: NDArray[Any] = seg.get_pixels_by_source_instance(
            source_sop_instance_uids=uids,
            segment_numbers=numbers,
            assert_missing_frames_are_empty=True,
            ignore_spatial_locations=True,
        )
    found: dict[str, NDArray[np.bool_]] = {}
    for index, number in enumerate(numbers):
        mask = stack[..., index].astype(bool)
        found[labels[number]] = found[labels[number]] | mask if labels[number] in found else mask
    return found


def _pixels(item: Any, path: Path) -> NDArray[Any]:
    with _slice_at_fault(path), decoding(path, "DICOM pixels"):
        raw: NDArray[Any] = item.pixel_array
        slope, intercept = float(item.get("RescaleSlope", 1)), float(item.get("RescaleIntercept", 0))
        inverted = item.get("PhotometricInterpretation") == "MONOCHROME1"
    if raw.ndim != 2:
        raise CaseError("dimensions", expected="grey slices", found=f"pixels of shape {raw.shape}")
    value = raw.astype(np.float32) * np.float32(slope) + np.float32(intercept)
    return -value if inverted else value


def _slice_distance(depth: NDArray[np.float64], first: Any) -> float:
    """The even distance of sorted slices in mm; CaseError where one is missing or doubled."""
    if depth.size == 1:
        return float(first.get("SpacingBetweenSlices") or first.get("SliceThickness") or 1.0)
    steps = np.diff(depth)
    distance = float(np.median(steps))
    if steps.min() <= 1e-4:
        raise CaseError("duplicate_slice", expected="one slice at each position", found="two at one position")
    if np.abs(steps - distance).max() > max(_POSITION_TOLERANCE * distance, 1e-3):
        raise CaseError(
            "missing_slice",
            expected=f"slices every {distance:.3f} mm",
            found=f"distances from {steps.min():.3f} to {steps.max():.3f} mm",
        )
    return distance
