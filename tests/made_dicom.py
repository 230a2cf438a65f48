"""DICOM objects that tests write: classic and enhanced series, structure sets, and the phantom in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    RTStructureSetStorage,
)

Change = Callable[[int, Dataset], None]
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SERIES = "1.2.826.0.1.3680043.8.498.1"
FRAME = "1.2.826.0.1.3680043.8.498.2"


def phantom(shape: tuple[int, int, int] = (9, 24, 20)) -> npt.NDArray[np.int16]:
    """An asymmetric volume (z, y, x): a ramp, a box, a rod and a dot, none where a mirror would put another."""
    z, y, x = np.indices(shape)
    volume = (x + 2 * y + 5 * z).astype(np.int16)
    volume[1:3, 2:6, 3:9] = 400
    volume[4:8, 15, 12] = 700
    volume[7, 4, 17] = 900
    return volume


def base(uid: str, sop_class: str, syntax: str = ExplicitVRLittleEndian) -> Dataset:
    """What every object has."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = UID(syntax)
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = UID(sop_class)
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = UID(uid)
    made.SeriesInstanceUID, made.FrameOfReferenceUID = SERIES, FRAME
    made.StudyInstanceUID, made.PatientID, made.PatientName = f"{SERIES}.9", "P1", "Made^Up"
    made.StudyDate, made.StudyTime, made.StudyID, made.AccessionNumber = "20000101", "120000", "1", ""
    made.PatientBirthDate, made.PatientSex, made.ReferringPhysicianName = "", "O", ""
    made.Modality, made.SeriesNumber, made.InstanceNumber = "CT", 1, 1
    made.Manufacturer, made.PositionReferenceIndicator = "made", ""
    return made


def set_pixels(made: Dataset, pixels: npt.NDArray[Any]) -> None:
    """16-bit grey pixels (rows, columns) or (frames, rows, columns)."""
    made.Rows, made.Columns = pixels.shape[-2:]
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated = made.BitsStored = 8 * pixels.dtype.itemsize
    made.HighBit = made.BitsStored - 1
    made.PixelRepresentation = int(pixels.dtype.kind == "i")
    made.PixelData = np.ascontiguousarray(pixels).tobytes()
    made["PixelData"].VR = "OW" if made.BitsAllocated > 8 else "OB"


def series(
    folder: Path,
    volume: npt.NDArray[Any],
    *,
    spacing_zyx: tuple[float, float, float] = (2.0, 0.5, 0.7),
    cosines: Sequence[float] = AXIAL,
    origin: Sequence[float] = (-10.0, 20.0, 5.0),
    tilt_mm: tuple[float, float] = (0.0, 0.0),
    change: Change | None = None,
) -> list[Path]:
    """A classic series, one file a slice; `tilt_mm` is how far each slice slides along its columns (x) and rows (y)."""
    folder.mkdir(parents=True, exist_ok=True)
    across, down = np.array(cosines[:3]), np.array(cosines[3:])
    step = np.cross(across, down) * spacing_zyx[0] + across * tilt_mm[0] + down * tilt_mm[1]
    paths = []
    for index, plane in enumerate(volume):
        made = base(f"{SERIES}.{index + 1}", CTImageStorage)
        set_pixels(made, plane)
        made.InstanceNumber = index + 1
        made.ImageOrientationPatient = [float(each) for each in cosines]
        made.ImagePositionPatient = [round(float(each), 6) for each in np.array(origin) + index * step]
        made.PixelSpacing = [spacing_zyx[1], spacing_zyx[2]]
        made.SliceThickness = spacing_zyx[0]
        if change:
            change(index, made)
        # file names that say nothing about the order
        paths.append(folder / f"{(index * 7 + 3) % 101:03d}.dcm")
        made.save_as(paths[-1], enforce_file_format=True)
    return sorted(paths)


def enhanced(
    path: Path,
    volume: npt.NDArray[Any],
    *,
    order: Sequence[int] | None = None,
    slopes: Sequence[float] | None = None,
    spacing_zyx: tuple[float, float, float] = (2.0, 0.5, 0.7),
    origin: Sequence[float] = (-10.0, 20.0, 5.0),
    change: Callable[[Dataset], None] | None = None,
) -> Path:
    """One enhanced CT object of all slices, stored in `order`, each with its own slope."""
    order = list(order or range(len(volume)))
    made = base(f"{SERIES}.500", EnhancedCTImageStorage)
    set_pixels(made, volume[order])
    made.NumberOfFrames = len(order)
    shared = Dataset()
    shared.PlaneOrientationSequence = [Dataset()]
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = list(AXIAL)
    shared.PixelMeasuresSequence = [Dataset()]
    shared.PixelMeasuresSequence[0].PixelSpacing = list(spacing_zyx[1:])
    shared.PixelMeasuresSequence[0].SliceThickness = spacing_zyx[0]
    made.SharedFunctionalGroupsSequence = [shared]
    made.PerFrameFunctionalGroupsSequence = []
    for at in order:
        groups = Dataset()
        groups.PlanePositionSequence = [Dataset()]
        groups.PlanePositionSequence[0].ImagePositionPatient = [origin[0], origin[1], origin[2] + at * spacing_zyx[0]]
        groups.PixelValueTransformationSequence = [Dataset()]
        groups.PixelValueTransformationSequence[0].RescaleSlope = slopes[at] if slopes else 1
        groups.PixelValueTransformationSequence[0].RescaleIntercept = 0
        made.PerFrameFunctionalGroupsSequence.append(groups)
    if change:
        change(made)
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save_as(path, enforce_file_format=True)
    return path


def structure_set(path: Path, regions: dict[str, list[npt.ArrayLike]], kind: str = "CLOSED_PLANAR") -> Path:
    """An RTSTRUCT of the series; a region is a list of contours, each (points, 3) in mm."""
    made = base(f"{SERIES}.700", RTStructureSetStorage)
    made.Modality, made.SeriesInstanceUID = "RTSTRUCT", f"{SERIES}.701"
    del made.FrameOfReferenceUID
    referenced, study, of_series = Dataset(), Dataset(), Dataset()
    of_series.SeriesInstanceUID = SERIES
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = "1.2.840.10008.3.1.2.3.1", f"{SERIES}.9"
    study.RTReferencedSeriesSequence = [of_series]
    referenced.FrameOfReferenceUID, referenced.RTReferencedStudySequence = FRAME, [study]
    made.ReferencedFrameOfReferenceSequence = [referenced]
    made.StructureSetROISequence, made.ROIContourSequence = [], []
    for number, (name, contours) in enumerate(regions.items(), start=1):
        roi = Dataset()
        roi.ROINumber, roi.ROIName, roi.ReferencedFrameOfReferenceUID = number, name, FRAME
        made.StructureSetROISequence.append(roi)
        drawn = Dataset()
        drawn.ReferencedROINumber, drawn.ContourSequence = number, []
        for points in contours:
            contour = Dataset()
            contour.ContourGeometricType = kind
            contour.NumberOfContourPoints = len(np.asarray(points))
            contour.ContourData = [f"{value:.6g}" for value in np.asarray(points, dtype=float).ravel()]
            drawn.ContourSequence.append(contour)
        made.ROIContourSequence.append(drawn)
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save_as(path, enforce_file_format=True)
    return path


def rewritten(path: Path, change: Callable[[Dataset], None], to: Path | None = None) -> Path:
    """A file with something changed."""
    made = pydicom.dcmread(path)
    change(made)
    made.save_as(to or path)
    return to or path
