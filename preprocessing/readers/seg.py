"""DICOM-SEG on the grid of its series: each frame is put where it says it lies, whatever the order or orientation.

BINARY and LABELMAP segments are taken as they are, FRACTIONAL ones by a threshold. Segments may overlap.
Frames that the SEG leaves out are empty (PS3.3 C.8.20). A frame of no place of its own (2D) lies on the
slice that it was derived from.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from infra.errors import CaseError
from preprocessing.readers import MAX_VOXELS, decoding, too_large
from preprocessing.readers.dicom_file import frames_of, numbers, read_file
from preprocessing.readers.dicom_frames import check_groups, group_item
from preprocessing.readers.lattice import Lattice, Vector

Mask = NDArray[np.bool_]

# By how much of a voxel a frame's pixels may lie off the series' voxels: headers round.
_TOLERANCE = 0.1


@dataclass(frozen=True)
class _Placed:
    """Where a frame's (rows, columns) lie in the series: first voxel, and the steps of a row and a column, x y z."""

    start: tuple[int, ...]
    down: tuple[int, ...]
    across: tuple[int, ...]


def read_segments(
    path: Path, uids: list[str], image: sitk.Image, *, threshold: float = 0.5, skip: Collection[str] = ()
) -> dict[str, Mask]:
    """Masks (z, y, x) on the grid of `image`, whose slices are the instances `uids`, by segment label in lower case.

    Without `uids` (a volume that was converted from DICOM) the place alone decides.
    Fractional segments hold from `threshold` of the largest value on; segments named in `skip` are left out.
    Raises CaseError: `unreadable`, `segmentation_type`, `mask_size`, `mask_grid`, `unknown_slice`, `too_large`.
    """
    seg = read_file(path)
    with decoding(path, "a DICOM-SEG"):
        kind = str(seg.SegmentationType)
        labels = {int(item.SegmentNumber): str(item.SegmentLabel).strip().lower() for item in seg.SegmentSequence}
        count = int(seg.get("NumberOfFrames") or 1)
        largest = int(seg.get("MaximumFractionalValue") or 255)
    if kind not in ("BINARY", "LABELMAP", "FRACTIONAL"):
        raise CaseError("segmentation_type", expected="a BINARY, LABELMAP or FRACTIONAL segmentation", found=kind[:40])
    lattice = Lattice.of(image)
    wanted: dict[str, list[int]] = {}
    for number, label in labels.items():
        if number > 0 and label not in skip:  # a label map's background is a segment of its own that has the number 0
            wanted.setdefault(label, []).append(number)
    if len(wanted) * math.prod(lattice.size) > 8 * MAX_VOXELS:
        raise too_large(len(wanted) * math.prod(lattice.size), 8 * MAX_VOXELS, "voxels in all segments")
    with decoding(path, "DICOM-SEG frames"):
        check_groups(seg, count)
        if uids:
            _check_sources(seg, count, set(uids))
        places = [_place(seg, index, lattice, uids) for index in range(count)]
        numbers_of = [0 if kind == "LABELMAP" else _segment_of(seg, index) for index in range(count)]
    if unknown := sorted(set(numbers_of) - {0, *labels}):
        raise CaseError("unreadable", "frames of the segments that the file lists", f"segment number {unknown[0]}")
    pixels = frames_of(seg, path)
    pixels = pixels[None] if pixels.ndim == 2 else pixels
    found: dict[str, Mask] = {label: np.zeros(lattice.size[::-1], dtype=bool) for label in wanted}
    for index, place in enumerate(places):
        for label, those in wanted.items():
            if kind != "LABELMAP" and numbers_of[index] not in those:
                continue
            if kind == "LABELMAP":
                part = np.isin(pixels[index], those)
            else:
                part = pixels[index] >= threshold * largest if kind == "FRACTIONAL" else pixels[index] > 0
            _put(found[label], part & (pixels[index] > 0), place)
    return found


def _segment_of(seg: Dataset, index: int) -> int:
    item = group_item(seg, index, "SegmentIdentificationSequence")
    if item is None:
        msg = f"frame {index + 1} names no segment"
        raise ValueError(msg)
    return int(item.ReferencedSegmentNumber)


def _sources(seg: Dataset, index: int) -> list[str]:
    """The instances that a frame was derived from."""
    item = group_item(seg, index, "DerivationImageSequence")
    images = (item.get("SourceImageSequence") or []) if item is not None else []
    return [str(each.ReferencedSOPInstanceUID) for each in images]


def _check_sources(seg: Dataset, count: int, uids: set[str]) -> None:
    named = {uid for index in range(count) for uid in _sources(seg, index)}
    if not named <= uids:
        raise CaseError(
            "unknown_slice",
            expected="frames that belong to slices of the series",
            found=f"{len(named - uids)} frame(s) of slices that are not there",
            fix="Find the missing slices of the series",
        )


def _place(seg: Dataset, index: int, lattice: Lattice, uids: list[str]) -> _Placed:
    position = group_item(seg, index, "PlanePositionSequence")
    orientation = group_item(seg, index, "PlaneOrientationSequence")
    measures = group_item(seg, index, "PixelMeasuresSequence")
    if position is None or orientation is None or measures is None:
        return _derived(seg, index, lattice, uids)
    cosines = np.array(numbers(orientation, "ImageOrientationPatient", 6))
    down_mm, across_mm = numbers(measures, "PixelSpacing", 2)
    start = lattice.index_of(np.array(numbers(position, "ImagePositionPatient", 3)))
    across, down = lattice.step_of(cosines[:3] * across_mm), lattice.step_of(cosines[3:] * down_mm)
    rows, columns = int(seg.Rows), int(seg.Columns)
    goal = _Placed(_whole(start), _whole(down), _whole(across))
    off = 0.0
    # at the frame's corners, where a spacing that is a little off is furthest off
    for down_by, across_by in ((0, 0), (rows - 1, 0), (0, columns - 1)):
        lies = start + down * down_by + across * across_by
        should = np.array(goal.start) + np.array(goal.down) * down_by + np.array(goal.across) * across_by
        off = max(off, float(np.abs(lies - should).max()))
    single = sorted(map(abs, goal.across)) == sorted(map(abs, goal.down)) == [0, 0, 1]
    if not single or off > _TOLERANCE:
        raise CaseError(
            "mask_grid",
            expected="frames whose pixels are voxels of the series",
            found=f"a frame that lies {off:.3f} voxels beside them",
            fix="Resample the segmentation onto the series",
        )
    return goal


def _whole(vector: Vector) -> tuple[int, ...]:
    return tuple(int(part) for part in np.rint(vector))


def _derived(seg: Dataset, index: int, lattice: Lattice, uids: list[str]) -> _Placed:
    """A frame without a place: all of the slice that it was derived from."""
    sources = _sources(seg, index)
    if len(sources) != 1 or uids.count(sources[0]) != 1:
        msg = f"frame {index + 1} has no position and {len(sources)} source image(s)"
        raise ValueError(msg)
    if (int(seg.Columns), int(seg.Rows)) != lattice.size[:2]:
        raise CaseError(
            "mask_size",
            expected=f"{lattice.size[1]} x {lattice.size[0]} pixels (rows x columns), as the series",
            found=f"{int(seg.Rows)} x {int(seg.Columns)}",
        )
    return _Placed((0, 0, uids.index(sources[0])), (0, 1, 0), (1, 0, 0))


def _put(mask: Mask, part: NDArray[Any], place: _Placed) -> None:
    """Set the voxels that a frame marks; CaseError `mask_grid` for marks outside the volume."""
    rows, columns = np.nonzero(part)
    if rows.size == 0:
        return
    at = np.array(place.start) + rows[:, None] * np.array(place.down) + columns[:, None] * np.array(place.across)
    size = np.array(mask.shape[::-1])
    if (at < 0).any() or (at >= size).any():
        outside = int(((at < 0) | (at >= size)).any(axis=1).sum())
        raise CaseError(
            "mask_grid",
            expected="marks inside the series' volume",
            found=f"{outside} marked voxel(s) outside it",
            fix="Find the series that was segmented, with all its slices",
        )
    mask[at[:, 2], at[:, 1], at[:, 0]] = True
