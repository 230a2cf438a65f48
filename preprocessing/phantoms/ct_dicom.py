"""Phantom_CT_DICOM: CT series of a generated trunk, with a DICOM-SEG of two segments to each series.

Stored values have slope 0.5 and intercept -1024, file names say nothing about the order of slices,
and two patients have two series each, so that the leakage unit differs from the case.
"""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.coding import Code
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from infra.storage import sha256_bytes
from preprocessing.phantoms import Fault, Truth
from preprocessing.phantoms.shapes import Mask, ellipsoid, generator, texture

NAME = "Phantom_CT_DICOM"
PATIENTS = 7
PATIENTS_WITH_TWO = 2
SHAPE = (10, 96, 96)  # z, y, x
SPACING_MM = (4.0, 1.5, 1.5)
ROD, MASS = "dense phantom rod", "soft phantom mass"
CONCEPTS = (ROD, MASS)
SLOPE, INTERCEPT = 0.5, -1024.0
DATE, TIME = "20000101", "120000"
MAKER = "Segfoundry phantom"
# Codes of SNOMED CT; there is none for a generated shape, so the general ones are used.
CATEGORY = Code("260787004", "SCT", "Physical object")
ROD_CODE = Code("260787004", "SCT", "Physical object")
MASS_CODE = Code("4147007", "SCT", "Mass")


def make(folder: Path, seed: int) -> Truth:
    """Write `patient_NN/series_N/ct/*.dcm` and `…/seg/segmentation.dcm` below `folder`; the last series has a gap."""
    truth = Truth()
    for patient in range(1, PATIENTS + 1):
        for series in range(1, 3 if patient <= PATIENTS_WITH_TWO else 2):
            counts, _ = _series(folder, seed, patient, series)
            truth.voxels[f"patient_{patient:02d}_series_{series}"] = counts
    _, files = _series(folder, seed, PATIENTS + 1, 1)
    files[SHAPE[0] // 2].unlink()
    home = f"patient_{PATIENTS + 1:02d}/series_1"
    truth.faults.append(Fault(home.replace("/", "_"), f"{home}/ct", "missing_slice"))
    return truth


def _series(folder: Path, seed: int, patient: int, series: int) -> tuple[dict[str, int], list[Path]]:
    """Write one series and its segmentation; return voxels per concept and the slices' files from feet to head."""
    hounsfield, masks = _trunk(generator(seed, NAME, 10 * patient + series))
    key = f"{seed}/{patient}/{series}"
    slices = _slices(hounsfield, key, patient, series)
    home = folder / f"patient_{patient:02d}" / f"series_{series}"
    (home / "ct").mkdir(parents=True)
    (home / "seg").mkdir()
    files = [home / "ct" / f"{sha256_bytes(each.SOPInstanceUID.encode())[:12]}.dcm" for each in slices]
    for each, file in zip(slices, files, strict=True):
        each.save_as(file, enforce_file_format=True)
    _segmentation(slices, masks, key).save_as(home / "seg" / "segmentation.dcm", enforce_file_format=True)
    return {concept: int(mask.sum()) for concept, mask in zip(CONCEPTS, masks, strict=True)}, files


def _trunk(rng: np.random.Generator) -> tuple[npt.NDArray[np.float32], tuple[Mask, Mask]]:
    """Hounsfield units (z, y, x) and the masks of rod and mass, which never overlap."""
    middle = (np.array(SHAPE) - 1) / 2
    body = ellipsoid(SHAPE, middle, (40, 36, 43))
    muscle = ellipsoid(SHAPE, middle, (40, 31, 38))
    hu = np.where(body, np.where(muscle, 40.0, -100.0), -1000.0).astype(np.float32)
    hu += body * (10.0 * texture(rng, SHAPE, 2.0))
    side = rng.choice((-1.0, 1.0))
    rod = ellipsoid(
        SHAPE, middle + np.array((0, rng.uniform(-8, 8), side * rng.uniform(17, 21))), (30, *rng.uniform(5, 8, 2))
    )
    mass = ellipsoid(
        SHAPE,
        middle + np.array((rng.uniform(-1.5, 1.5), rng.uniform(-6, 6), -side * rng.uniform(8, 13))),
        (rng.uniform(3.5, 5.5), *rng.uniform(10, 15, 2)),
    )
    hu[mass] = 125.0 + 12.0 * texture(rng, SHAPE, 1.5)[mass]
    hu[rod] = 320.0 + 40.0 * texture(rng, SHAPE, 1.0)[rod]
    # Grains as dense as the rod and gas as a gut holds it: what is bright is not always the rod.
    for _ in range(3):
        spot = ellipsoid(SHAPE, middle + rng.uniform(-1, 1, 3) * (4, 18, 6) + (0, 14, 0), (1.2, 1.6, 1.6))
        hu[spot & ~mass & ~rod] = 300.0
    gas = ellipsoid(SHAPE, middle + np.array((0, -20, rng.uniform(-6, 6))), (30, 4, 7))
    hu[gas & ~mass & ~rod] = -850.0
    hu += 14.0 * rng.standard_normal(SHAPE, dtype=np.float32)
    return hu, (rod, mass & ~rod)


def _slices(hounsfield: npt.NDArray[np.float32], key: str, patient: int, series: int) -> list[Dataset]:
    """One CT Image Storage object a slice, from feet to head; axial, millimetres, LPS."""
    stored = np.clip(np.rint((hounsfield - INTERCEPT) / SLOPE), 0, 65535).astype(np.uint16)
    patient_key = "/".join(key.split("/")[:2])
    return [_slice(stored, index, key, patient_key, patient, series) for index in range(SHAPE[0])]


def _slice(
    stored: npt.NDArray[np.uint16], index: int, key: str, patient_key: str, patient: int, series: int
) -> Dataset:
    each = Dataset()
    each.file_meta = FileMetaDataset()
    each.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    each.SOPClassUID = CTImageStorage
    each.SOPInstanceUID = _uid(f"{key}/ct/{index}")
    each.file_meta.MediaStorageSOPClassUID = each.SOPClassUID
    each.file_meta.MediaStorageSOPInstanceUID = each.SOPInstanceUID
    each.StudyInstanceUID = _uid(f"{patient_key}/study")
    each.SeriesInstanceUID = _uid(f"{key}/ct")
    each.FrameOfReferenceUID = _uid(f"{key}/frame")
    each.Modality = "CT"
    each.ImageType = ["DERIVED", "PRIMARY", "AXIAL"]
    each.Manufacturer, each.ManufacturerModelName = MAKER, NAME
    each.SeriesDescription = "generated, no patient"
    each.PatientName, each.PatientID = f"PHANTOM^{patient:02d}", f"{NAME}-{patient:02d}"
    each.PatientBirthDate, each.PatientSex, each.PatientIdentityRemoved = "", "O", "YES"
    each.DeidentificationMethod = "generated"
    each.StudyID, each.SeriesNumber, each.AccessionNumber = str(patient), series, ""
    each.ReferringPhysicianName, each.PositionReferenceIndicator = "", ""
    each.StudyDate = each.SeriesDate = each.ContentDate = each.AcquisitionDate = DATE
    each.StudyTime = each.SeriesTime = each.ContentTime = each.AcquisitionTime = TIME
    each.AcquisitionNumber = 1
    each.InstanceNumber = index + 1
    each.KVP, each.PatientPosition, each.BurnedInAnnotation = "120", "HFS", "NO"
    each.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    each.ImagePositionPatient = [-72.0, -70.0, index * SPACING_MM[0] - 120.0]
    each.PixelSpacing = [SPACING_MM[1], SPACING_MM[2]]
    each.SliceThickness = SPACING_MM[0]
    each.Rows, each.Columns = SHAPE[1:]
    each.SamplesPerPixel, each.PhotometricInterpretation = 1, "MONOCHROME2"
    each.BitsAllocated, each.BitsStored, each.HighBit, each.PixelRepresentation = 16, 16, 15, 0
    each.RescaleSlope, each.RescaleIntercept, each.RescaleType = SLOPE, INTERCEPT, "HU"
    each.PixelData = stored[index].tobytes()
    return each


def _segmentation(slices: list[Dataset], masks: tuple[Mask, ...], key: str) -> Any:
    """A binary DICOM-SEG over `slices`; what highdicom takes from the clock or at random is set to fixed values."""
    codes = (ROD_CODE, MASS_CODE)
    described = [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=concept,
            segmented_property_category=CATEGORY,
            segmented_property_type=code,
            algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.MANUAL,
            tracking_uid=_uid(f"{key}/track/{number}"),
            tracking_id=f"{key} {concept}",
        )
        for number, (concept, code) in enumerate(zip(CONCEPTS, codes, strict=True), start=1)
    ]
    made = highdicom.seg.Segmentation(
        source_images=slices,
        pixel_array=np.stack([mask.astype(np.uint8) for mask in masks], axis=-1),
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=described,
        series_instance_uid=_uid(f"{key}/seg"),
        series_number=100,
        sop_instance_uid=_uid(f"{key}/seg/1"),
        instance_number=1,
        manufacturer=MAKER,
        manufacturer_model_name=NAME,
        software_versions="1",
        device_serial_number="1",
        content_label="PHANTOM",
        series_description="truth of a generated series",
    )
    _fix(made, key)
    return made


def _fix(part: Dataset, key: str) -> None:
    """Put fixed values where highdicom put the time of day or random UIDs, at every depth."""
    for element in part:
        if element.keyword == "DimensionOrganizationUID":
            element.value = _uid(f"{key}/dimensions")
        elif element.VR == "DA" and element.value:
            element.value = DATE
        elif element.VR == "TM" and element.value:
            element.value = TIME
        elif element.VR == "DT" and element.value:
            element.value = DATE + TIME
        elif element.VR == "SQ":
            for item in element.value:
                _fix(item, key)


def _uid(text: str) -> str:
    """A valid UID that is always the same for the same text: a name-based UUID below 2.25 (DICOM PS3.5, B.2)."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, f'segfoundry/{NAME}/{text}').int}"
