"""What a DICOM header says about each frame: where it lies and what its numbers mean.

A classic object is one frame and says it at its top. An enhanced multi-frame object says it in functional
groups, for all frames (shared) or for each (PS3.3 C.7.6.16).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut

from infra.errors import CaseError
from preprocessing.readers import decoding
from preprocessing.readers.dicom_file import frames_of, number, numbers, quiet


@dataclass(frozen=True)
class Frame:
    """One plane of pixels. `index` counts within its file; `cosines` are those of columns (x), then rows (y)."""

    path: Path
    dataset: Dataset
    index: int
    uid: str
    shape: tuple[int, int]
    position: tuple[float, ...]
    cosines: tuple[float, ...]
    spacing_yx: tuple[float, ...]
    thickness: float
    values: Any  # the item that holds slope and intercept
    display: Any  # the item that holds the VOI LUT or window


def group_item(dataset: Dataset, index: int, name: str) -> Any:
    """The first item of functional group `name` for frame `index`, per frame or shared; None where neither has it."""
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or []
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    for groups in [*per_frame[index : index + 1], *shared[:1]]:
        sequence = groups.get(name)
        if sequence:
            return sequence[0]
    return None


def check_groups(dataset: Dataset, count: int) -> None:
    """ValueError unless there are as many functional groups as frames."""
    groups = dataset.get("PerFrameFunctionalGroupsSequence") or []
    if len(groups) != count:
        msg = f"{len(groups)} functional groups for {count} frame(s)"
        raise ValueError(msg)


def has_place(dataset: Dataset) -> bool:
    """Whether an object's pixels have a place in the patient: a position of its own, or one for its first frame."""
    return dataset.get("ImagePositionPatient") is not None or (
        group_item(dataset, 0, "PlanePositionSequence") is not None
    )


def check_image(dataset: Dataset) -> None:
    """CaseError `image_kind` for an object that holds no picture of a patient's volume: a label, a slide's tiles."""
    kinds = {
        "SegmentSequence": "a DICOM-SEG",
        "StructureSetROISequence": "an RTSTRUCT",
        "TotalPixelMatrixRows": "tiles of a whole-slide image",
        "ContentSequence": "a structured report or presentation",
    }
    for keyword, kind in kinds.items():
        if keyword in dataset:
            raise CaseError("image_kind", expected="an image or the slices of a volume", found=kind)


def frames_in(path: Path, dataset: Dataset) -> list[Frame]:
    """The frames of one object. Raises CaseError: `dimensions` where they have no place, `image_kind`, `unreadable`."""
    check_image(dataset)
    with decoding(path, "DICOM geometry"):
        count = int(dataset.get("NumberOfFrames") or 1)
        shape = (int(dataset.Rows), int(dataset.Columns))
        if dataset.get("ImagePositionPatient") is not None and count == 1:
            return [_frame(path, dataset, 0, shape, dataset, dataset, dataset, dataset, dataset)]
        if group_item(dataset, 0, "PlanePositionSequence") is None:
            kind = "a position for each frame" if count > 1 else "single-frame slices with a position"
            raise CaseError("dimensions", kind, f"a file of another kind, with {count} frame(s) and no position")
        check_groups(dataset, count)
        names = ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")
        rest = ("PixelValueTransformationSequence", "FrameVOILUTSequence")
        found = []
        for index in range(count):
            items = [group_item(dataset, index, name) for name in names]
            if None in items:
                msg = f"frame {index + 1} has no {names[items.index(None)]}"
                raise ValueError(msg)
            items += [group_item(dataset, index, name) or dataset for name in rest]
            found.append(_frame(path, dataset, index, shape, *items))
    return found


def _frame(
    path: Path,
    dataset: Dataset,
    index: int,
    shape: tuple[int, int],
    position: Any,
    orientation: Any,
    measures: Any,
    values: Any,
    display: Any,
) -> Frame:
    between = number(measures, "SpacingBetweenSlices", 0.0) or number(dataset, "SpacingBetweenSlices", 0.0)
    return Frame(
        path=path,
        dataset=dataset,
        index=index,
        uid=str(dataset.SOPInstanceUID),
        shape=shape,
        position=tuple(numbers(position, "ImagePositionPatient", 3)),
        cosines=tuple(numbers(orientation, "ImageOrientationPatient", 6)),
        spacing_yx=tuple(numbers(measures, "PixelSpacing", 2)),
        thickness=between or number(measures, "SliceThickness", 1.0) or 1.0,
        values=values,
        display=display,
    )


def modality_values(raw: NDArray[Any], dataset: Dataset, item: Any) -> NDArray[np.float32]:
    """Stored values to what they mean (HU for CT) by the slope and intercept of `item`, or by the object's LUT."""
    if dataset.get("ModalityLUTSequence"):
        with quiet():
            return np.asarray(apply_modality_lut(raw, dataset), dtype=np.float32)
    slope, intercept = number(item, "RescaleSlope", 1.0), number(item, "RescaleIntercept", 0.0)
    return np.asarray(raw.astype(np.float32) * np.float32(slope) + np.float32(intercept))


def plane_values(frame: Frame, decoded: dict[Path, NDArray[Any]]) -> NDArray[np.float32]:
    """Decoded values (rows, columns) of one frame. Raises CaseError: `unreadable`, `dimensions`.

    `decoded` remembers the pixels of multi-frame files, whose frames are decoded together: to find one
    compressed frame all those before it are passed.
    """
    if int(frame.dataset.get("NumberOfFrames") or 1) == 1:
        raw = frames_of(frame.dataset, frame.path)
    else:
        if frame.path not in decoded:
            decoded[frame.path] = frames_of(frame.dataset, frame.path)
        raw = decoded[frame.path][frame.index]
    if raw.ndim != 2:
        raise CaseError("dimensions", expected="grey slices", found=f"pixels of shape {raw.shape}")
    with decoding(frame.path, "DICOM pixels"):
        return modality_values(raw, frame.dataset, frame.values)
