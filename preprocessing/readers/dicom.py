"""DICOM images: a series or an enhanced multi-frame object as one volume, a single image as one picture.

Slices are sorted by position along their normal; they must share one orientation and lie evenly on one
straight line. Where that line is not the normal (gantry tilt) the grid is sheared, which SimpleITK can
say, and `harmonize.geometry.regrid` straightens it. Nothing of a header but geometry, UIDs and the
patient's id (hashed before it is written) is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from infra.errors import CaseError
from preprocessing.readers import MAX_VOXELS, decoding, too_large
from preprocessing.readers.dicom_cases import find_dicom_cases
from preprocessing.readers.dicom_file import at_fault, frames_of, read_file, read_header
from preprocessing.readers.dicom_frames import Frame, check_image, frames_in, has_place, modality_values, plane_values
from preprocessing.readers.nifti_family import check_spacing
from preprocessing.readers.voi import Voi, voi_of

__all__ = ["Picture", "Series", "find_dicom_cases", "is_picture", "read_picture", "read_series"]

_POSITION_TOLERANCE = 0.01  # share of the slice distance by which a slice may lie off the even grid
_LINE_TOLERANCE_PX = 0.25  # by how much a slice may lie off the straight line through all
_TILT_RAD, _TILT_PX = 1e-3, 0.1  # below either, slices lie above each other but for rounding


@dataclass(frozen=True)
class Series:
    """A volume in modality units; `uids` are the SOP instances of its slices in order, `header` that of the first.

    `inverted`: small values are bright (MONOCHROME1) and say nothing physical.
    """

    image: sitk.Image
    uids: list[str]
    inverted: bool
    voi: Voi | None
    header: Dataset


@dataclass(frozen=True)
class Picture:
    """A single image: (rows, columns) of uint8 or float32, or (rows, columns, 3) of uint8."""

    pixels: NDArray[Any]
    inverted: bool
    voi: Voi | None
    header: Dataset


def is_picture(path: Path) -> bool:
    """Whether a DICOM file is a picture without a place in the patient (X-ray, secondary capture, ultrasound)."""
    header = read_header(path)
    check_image(header)
    return "Rows" in header and not has_place(header)


def read_picture(path: Path) -> Picture:
    """Read one single-frame image. Raises CaseError: `unreadable`, `too_large`, `dimensions`."""
    dataset = read_file(path)
    if int(dataset.get("NumberOfFrames") or 1) > 1:
        raise CaseError("dimensions", "one frame", f"{dataset.NumberOfFrames} frames without a position")
    raw = frames_of(dataset, path)
    if raw.ndim == 3:
        return Picture(raw, False, None, dataset)
    with decoding(path, "a DICOM picture"):
        inverted = dataset.get("PhotometricInterpretation") == "MONOCHROME1"
        value: NDArray[Any] = modality_values(raw, dataset, dataset)
        if raw.dtype == np.uint8 and np.array_equal(value, raw):
            value = raw  # 8 bits that mean themselves stay 8 bits, so that a card can keep them as they are
        return Picture(value, inverted, voi_of(dataset), dataset)


def read_series(paths: list[Path], frame: int | None = None) -> Series:
    """Read the slices of one series, from one file each or from multi-frame files.

    Where positions repeat (time points, echoes) `frame` picks the one to keep at each, counted from 0 in
    the order of acquisition. Raises CaseError, whose `file` is the path of the slice at fault: `unreadable`,
    `image_kind`, `series`, `missing_slice`, `duplicate_slice`, `dimensions`, `spacing`, `shear`, `too_large`.
    """
    frames: list[Frame] = []
    for path in paths:
        with at_fault(path):
            frames += frames_in(path, read_file(path))
    first = frames[0]
    with at_fault(first.path):
        normal = _normal(first)
        check_spacing(first.spacing_yx)
        if first.shape[0] * first.shape[1] * len(frames) > MAX_VOXELS:
            raise too_large(first.shape[0] * first.shape[1] * len(frames), MAX_VOXELS, "voxels")
    for each in frames:
        with at_fault(each.path):
            _check_alike(first, each)
    if frame is not None:
        with at_fault(first.path):
            frames = _picked(frames, normal, frame)
    depth = np.array([each.position for each in frames]) @ normal
    frames = [frames[index] for index in np.argsort(depth, kind="stable")]
    positions = np.array([each.position for each in frames])
    with at_fault(first.path), decoding(first.path, "DICOM geometry"):
        distance = _slice_distance(np.sort(depth), first.thickness)
        check_spacing((*first.spacing_yx, distance))
        step = _step(positions, normal * distance, first)
    decoded: dict[Path, NDArray[Any]] = {}
    pixels = np.stack([_plane(each, decoded) for each in frames])
    with decoding(first.path, "DICOM geometry"):
        image = sitk.GetImageFromArray(pixels)
        length = float(np.linalg.norm(step))
        image.SetSpacing([first.spacing_yx[1], first.spacing_yx[0], length])
        image.SetOrigin(positions[0].tolist())
        image.SetDirection(np.stack([first.cosines[:3], first.cosines[3:], step / length], axis=1).ravel().tolist())
    return Series(image, [each.uid for each in frames], _is_inverted(first.dataset), _voi(frames), first.dataset)


def _plane(frame: Frame, decoded: dict[Path, NDArray[Any]]) -> NDArray[np.float32]:
    with at_fault(frame.path):
        return plane_values(frame, decoded)


def _normal(frame: Frame) -> NDArray[np.float64]:
    """The unit normal of a frame; CaseError `shear` where its rows and columns are not at right angles."""
    across, down = np.array(frame.cosines[:3]), np.array(frame.cosines[3:])
    lengths = (float(np.linalg.norm(across)), float(np.linalg.norm(down)))
    if abs(lengths[0] - 1) > 1e-2 or abs(lengths[1] - 1) > 1e-2 or abs(float(across @ down)) > 1e-3:
        raise CaseError(
            "shear",
            expected="rows and columns at right angles, as cosines of length 1",
            found=f"lengths {lengths[0]:.4f} and {lengths[1]:.4f}, cosine between them {float(across @ down):.4f}",
        )
    return np.cross(across, down)


def _check_alike(first: Frame, other: Frame) -> None:
    if other.shape != first.shape or np.abs(np.array(other.cosines) - np.array(first.cosines)).max() > 1e-3:
        raise CaseError(
            "series",
            expected=f"slices of {first.shape[0]} x {first.shape[1]} pixels in one orientation",
            found=f"a slice of {other.shape[0]} x {other.shape[1]} or of another orientation",
        )
    if not np.allclose(other.spacing_yx, first.spacing_yx, rtol=1e-3):
        raise CaseError(
            "series",
            expected=f"slices with a pixel spacing of {first.spacing_yx[0]:g} x {first.spacing_yx[1]:g} mm",
            found=f"a slice with {other.spacing_yx[0]:g} x {other.spacing_yx[1]:g} mm",
        )


def _picked(frames: list[Frame], normal: NDArray[np.float64], which: int) -> list[Frame]:
    """The `which`-th frame at each position; CaseError `dimensions` where a position has fewer."""
    ordered = sorted(frames, key=_acquired)
    places: dict[float, list[Frame]] = {}
    for each in ordered:
        places.setdefault(round(float(np.array(each.position) @ normal), 3), []).append(each)
    fewest = min(len(at) for at in places.values())
    if which >= fewest:
        raise CaseError(
            "dimensions",
            expected=f"frame {which} at every position, counted from 0, as the card says",
            found=f"a position with {fewest} frame(s)",
        )
    return [at[which] for at in places.values()]


def _acquired(frame: Frame) -> tuple[int, int, int]:
    header = frame.dataset
    order = header.get("TemporalPositionIdentifier") or header.get("AcquisitionNumber") or 0
    return int(order), int(header.get("InstanceNumber") or 0), frame.index


def _slice_distance(depth: NDArray[np.float64], thickness: float) -> float:
    """The even distance of sorted slices in mm; CaseError where one is missing or doubled."""
    if depth.size == 1:
        return thickness
    steps = np.diff(depth)
    distance = float(np.median(steps))
    if steps.min() <= 1e-4:
        raise CaseError(
            "duplicate_slice",
            expected="one slice at each position",
            found="two at one position",
            fix="Remove the copy, or let the card's `frame` pick one of several time points",
        )
    if np.abs(steps - distance).max() > max(_POSITION_TOLERANCE * distance, 1e-3):
        raise CaseError(
            "missing_slice",
            expected=f"slices every {distance:.3f} mm",
            found=f"distances from {steps.min():.3f} to {steps.max():.3f} mm",
        )
    return distance


def _step(positions: NDArray[np.float64], upright: NDArray[np.float64], first: Frame) -> NDArray[np.float64]:
    """From one slice to the next in mm: along the normal, or with a gantry tilt along the line of the origins."""
    if len(positions) == 1:
        return upright
    slope = (positions[-1] - positions[0]) / (len(positions) - 1)
    pixel = min(first.spacing_yx)
    line = positions[0] + np.arange(len(positions))[:, None] * slope
    normal = upright / np.linalg.norm(upright)
    sideways = (positions - line) - ((positions - line) @ normal)[:, None] * normal
    if np.linalg.norm(sideways, axis=1).max() > _LINE_TOLERANCE_PX * pixel:
        raise CaseError(
            "series",
            expected="slices whose corners lie on one line",
            found=f"a slice {float(np.linalg.norm(sideways, axis=1).max()):.3f} mm beside it",
        )
    slide = slope - (slope @ normal) * normal
    tilt, drift = np.linalg.norm(slide) / np.linalg.norm(upright), np.linalg.norm(slide) * (len(positions) - 1)
    return upright + slide if tilt > _TILT_RAD and drift > _TILT_PX * pixel else upright


def _is_inverted(header: Dataset) -> bool:
    """MONOCHROME1 without a unit: a display that is dark where numbers are large. HU stay HU however shown."""
    physical = header.get("Modality") in ("CT", "PT") or header.get("RescaleType") == "HU"
    return header.get("PhotometricInterpretation") == "MONOCHROME1" and not physical


def _voi(frames: list[Frame]) -> Voi | None:
    """The display function that all slices share; None where they have several, which no one rule could invert."""
    try:
        found = {voi_of(each.display) for each in frames}
    except (ValueError, TypeError, AttributeError):
        return None
    return found.pop() if len(found) == 1 else None
