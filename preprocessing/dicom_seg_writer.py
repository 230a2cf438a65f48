"""Masks on the grid of a DICOM series to a DICOM-SEG that refers to that series, through highdicom (PS3.3 A.51).

A SEG carries the patient and study of its source, as the standard demands: it belongs back into the archive
that the series came from, never into a dataset.
"""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray

from infra.errors import DataError
from infra.storage import atomic_path, digest_of, sha256_bytes
from preprocessing import ontology
from preprocessing.readers import DECODER_ERRORS

# How far a slice may lie from the place that cases.parquet gives it, as a share of the finest spacing.
_PLACE_TOLERANCE = 0.05
_NAMESPACE = uuid.UUID("5d5d3a0e-4b3f-5c5a-9d1e-6f0b6c1f7a55")
# Segmentation property categories of PS3.16 CID 7150.
_ANATOMICAL = ("123037004", "SCT", "Anatomical Structure")
_ABNORMAL = ("49755003", "SCT", "Morphologically Abnormal Structure")
_SPATIAL = ("309825002", "SCT", "Spatial and Relational Concept")
_ABNORMAL_ROOTS = frozenset({"lesion", "tumor", "polyp", "cyst", "hemorrhage"})


@dataclass(frozen=True)
class Algorithm:
    """What drew the masks; without a name a person did."""

    name: str = ""
    version: str = ""


@dataclass(frozen=True)
class _Plane:
    dataset: Any
    frame: int  # of a multi-frame file; 0 otherwise
    position_mm: NDArray[np.float64]


def is_dicom(path: Path) -> bool:
    """Whether a file says that it is DICOM, whatever its name."""
    return bool(pydicom.misc.is_dicom(path))


def write_dicom_seg(
    masks: Mapping[str, NDArray[np.bool_]],
    sources: Sequence[Path],
    case_row: Mapping[str, Any],
    algorithm: Algorithm,
    path: Path,
) -> None:
    """Write masks (z, y, x) on the case's original grid as one BINARY SEG, a segment for each concept.

    `sources` are the files of the series, in any order: each is put to the slice at its place. Segments may
    overlap. Empty ones are kept, so that a reader sees what was looked for; frames without a pixel are left
    out, as the standard allows. ITK reads one-bit frames right where a frame is a whole number of bytes.
    Raises DataError where the series does not lie where `case_row` says.
    """
    import highdicom as hd

    name = f"{case_row['dataset']}/{case_row['case_id']}"
    if not masks:
        msg = f"{name}: a DICOM-SEG needs at least one concept, found no mask"
        raise DataError(msg)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they quote the patient's name
            datasets = [_header(file) for file in sources]
            planes, order = _placed(datasets, case_row, name)
            concepts = sorted(masks)
            pixels = np.stack([masks[concept][order] for concept in concepts], axis=-1)
            identity = digest_of(
                [name, concepts, sha256_bytes(np.packbits(pixels).tobytes()), algorithm.name, algorithm.version]
            )
            seg = hd.seg.Segmentation(
                source_images=datasets if len(datasets) == 1 else [plane.dataset for plane in planes],
                pixel_array=pixels.astype(np.uint8),
                segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
                segment_descriptions=[
                    _description(concept, number, algorithm) for number, concept in enumerate(concepts, start=1)
                ],
                series_instance_uid=_uid(identity, "series"),
                series_number=int(datasets[0].get("SeriesNumber") or 0) + 1000,
                sop_instance_uid=_uid(identity, "instance"),
                instance_number=1,
                manufacturer="Segfoundry",
                manufacturer_model_name="segfoundry data back",
                software_versions=_own_version(),
                device_serial_number="0",
                content_label="SEGMENTATION",
                series_description=("Segmentation by " + algorithm.name)[:64] if algorithm.name else "Segmentation",
            )
    except DECODER_ERRORS as error:
        # What is missing may be named; what a header holds may be about a person.
        text = f" ({error})" if isinstance(error, AttributeError | KeyError) else ""
        msg = f"{name}: expected a series that a DICOM-SEG can refer to, found: {type(error).__name__}{text}"
        raise DataError(msg) from None
    with atomic_path(path) as temporary:
        seg.save_as(temporary)


def _own_version() -> str:
    """Ours; "served" where this code came inside a model, without the package."""
    try:
        return version("segfoundry")
    except PackageNotFoundError:
        return "served"


def _header(file: Path) -> Any:
    dataset = pydicom.dcmread(file, stop_before_pixels=True)
    if not dataset.get("SpecificCharacterSet", "absent"):
        del (
            dataset.SpecificCharacterSet
        )  # present and empty means the default, which highdicom writes by leaving it out
    return dataset


def _placed(datasets: list[Any], case_row: Mapping[str, Any], name: str) -> tuple[list[_Plane], list[int]]:
    """The planes of the series that make the original grid, and the slice (z) of each."""
    size = [int(value) for value in case_row["original_size_xyz"]]
    spacing = np.array(case_row["original_spacing_mm_xyz"], dtype=float)
    step = np.array(case_row["original_direction"], dtype=float).reshape(3, 3)[:, 2] * spacing[2]
    expected = np.array(case_row["original_origin_mm_xyz"], dtype=float) + np.arange(size[2])[:, None] * step
    found: dict[int, _Plane] = {}
    is_multi = len(datasets) == 1 and int(datasets[0].get("NumberOfFrames") or 1) > 1
    for plane in _planes(datasets):
        distance = np.linalg.norm(expected - plane.position_mm, axis=1)
        slice_z = int(distance.argmin())
        if distance[slice_z] <= _PLACE_TOLERANCE * spacing.min():
            found.setdefault(slice_z, plane)
    missing = sorted(set(range(size[2])) - set(found))
    if missing:
        msg = (
            f"{name}: expected a source image at each of {size[2]} slices of the original grid, found none at "
            f"{len(missing)}, first slice {missing[0]}. A resampled or tilted series goes back as NIfTI alone"
        )
        raise DataError(msg)
    if is_multi and len(found) != int(datasets[0].NumberOfFrames):
        msg = f"{name}: expected one frame a slice, found {datasets[0].NumberOfFrames} for {size[2]} slices"
        raise DataError(msg)
    order = sorted(found, key=lambda slice_z: found[slice_z].frame) if is_multi else sorted(found)
    return [found[slice_z] for slice_z in order], order


def _planes(datasets: list[Any]) -> list[_Plane]:
    planes = []
    for dataset in datasets:
        if "PerFrameFunctionalGroupsSequence" in dataset:
            planes += [
                _Plane(dataset, index, np.array(group.PlanePositionSequence[0].ImagePositionPatient, dtype=float))
                for index, group in enumerate(dataset.PerFrameFunctionalGroupsSequence)
            ]
        else:
            planes.append(_Plane(dataset, 0, np.array(dataset.ImagePositionPatient, dtype=float)))
    return planes


def _description(concept: str, number: int, algorithm: Algorithm) -> Any:
    """Label, codes and origin of one segment."""
    import highdicom as hd
    from pydicom.sr.codedict import codes

    category, kind = _codes(concept)
    drawn_by, identification = hd.seg.SegmentAlgorithmTypeValues.MANUAL, None
    if algorithm.name:
        drawn_by = hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC
        identification = hd.AlgorithmIdentificationSequence(
            name=algorithm.name, family=codes.DCM.ArtificialIntelligence, version=algorithm.version or "unknown"
        )
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=concept[:64],
        segmented_property_category=hd.sr.CodedConcept(*category),
        segmented_property_type=hd.sr.CodedConcept(*kind),
        algorithm_type=drawn_by,
        algorithm_identification=identification,
        tracking_id=concept[:64],
        tracking_uid=_uid(concept, "concept"),
    )


def _codes(concept: str) -> tuple[tuple[str, str, str], tuple[str, str, str]]:
    """Category and type of a segment as (value, scheme, meaning): SNOMED CT where it is known, else a private code."""
    try:
        described = ontology.describe(concept)
    except DataError:  # a prompt of the user's that is no concept of ours
        described = {}
    lineage = set(concept.split()) | set(str(described.get("parent") or "").split())
    category = _ABNORMAL if lineage & _ABNORMAL_ROOTS else _ANATOMICAL if described.get("snomed") else _SPATIAL
    if described.get("snomed"):
        return category, (str(described["snomed"]), "SCT", concept[:64])
    # A private code: at most 16 characters, the same for the same name everywhere.
    return category, (sha256_bytes(concept.encode())[:16], "99SEGFOUNDRY", concept[:64])


def _uid(identity: str, what: str) -> str:
    """A UID below 2.25 (PS3.5 B.2) that is the same for the same masks."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, f'{what} {identity}').int}"
