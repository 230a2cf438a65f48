"""DICOM RTSTRUCT: contours of regions of interest to masks on the grid of their series.

A voxel belongs to a contour where its centre lies inside (even-odd). Contours of one region on one slice:
a contour inside what is there already is a hole, one beside it or across its edge is added, a copy counts
once; contours of the type CLOSEDPLANAR_XOR are combined by exclusive or (PS3.3 C.8.8.6.3). A keyhole
contour, which runs to its hole and back, needs no rule of its own.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from infra.errors import CaseError
from preprocessing.readers import MAX_VOXELS, decoding, too_large
from preprocessing.readers.dicom_file import read_file
from preprocessing.readers.lattice import Lattice, Vector

Mask = NDArray[np.bool_]

# A contour may lie this share of the slice distance off its slice. Further off it lies between slices, and
# which one it was drawn for would be a guess of up to half a slice.
_OFF_SLICE = 0.2
_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")


def read_contours(
    path: Path, uids: list[str], image: sitk.Image, *, skip: Collection[str] = (), partial: bool = False
) -> dict[str, Mask]:
    """Masks (z, y, x) on the grid of `image`, whose slices are the instances `uids`, by ROI name in lower case.

    Without `uids` (a volume that was converted from DICOM) the place alone decides.
    Regions named in `skip` are not drawn. With `partial`, contours on slices that the series lacks are left
    out. Raises CaseError: `unreadable`, `contour_type`, `contour_plane`, `unknown_slice`, `mask_grid`, `too_large`.
    """
    header = read_file(path)
    with decoding(path, "an RTSTRUCT"):
        names = {int(item.ROINumber): str(item.ROIName).strip().lower() for item in header.StructureSetROISequence}
        regions = [
            (names[int(item.ReferencedROINumber)], list(item.get("ContourSequence") or []))
            for item in header.get("ROIContourSequence") or []
        ]
    lattice = Lattice.of(image)
    wanted = {name for name in names.values() if name not in skip}
    if len(wanted) * math.prod(lattice.size) > 8 * MAX_VOXELS:
        raise too_large(len(wanted) * math.prod(lattice.size), 8 * MAX_VOXELS, "voxels in all regions")
    found: dict[str, Mask] = {name: np.zeros(lattice.size[::-1], dtype=bool) for name in sorted(wanted)}
    for name, contours in regions:
        if name not in found:
            continue
        with decoding(path, "contours"):
            found[name] |= _region(contours, lattice, set(uids), partial)
    return found


def _region(contours: list[Dataset], lattice: Lattice, uids: set[str], partial: bool) -> Mask:
    """The mask of one region."""
    planes: dict[int, list[tuple[Vector, bool]]] = {}
    for contour in contours:
        kind = str(contour.get("ContourGeometricType"))
        if kind not in _CLOSED:
            raise CaseError("contour_type", expected=" or ".join(_CLOSED), found=kind[:40])
        at = _on_slice(contour, lattice, uids, partial)
        if at is not None:
            planes.setdefault(at[0], []).append((at[1], kind == "CLOSEDPLANAR_XOR"))
    mask = np.zeros(lattice.size[::-1], dtype=bool)
    for z, outlines in planes.items():
        mask[z] = _plane([(fill(points, mask.shape[1:]), xor) for points, xor in outlines])
    return mask


def _on_slice(contour: Dataset, lattice: Lattice, uids: set[str], partial: bool) -> tuple[int, Vector] | None:
    """Slice number and outline (points, x y) of a contour in voxels; None for one on a slice that is not there."""
    values = np.array([float(part) for part in contour.ContourData], dtype=np.float64)
    if values.size % 3 or values.size < 9 or not np.isfinite(values).all():
        msg = f"a contour of {values.size} numbers, which are not at least three points of three"
        raise ValueError(msg)
    points = lattice.index_of(values.reshape(-1, 3))
    z = float(points[:, 2].mean())
    named = {str(item.ReferencedSOPInstanceUID) for item in contour.get("ContourImageSequence") or []}
    if (named and uids and not named & uids) or not -0.5 <= z < lattice.size[2] - 0.5:
        if partial:
            return None
        raise CaseError(
            "unknown_slice",
            expected="contours on slices of the series",
            found=f"a contour {z:.2f} slices above the first of {lattice.size[2]}, drawn on a slice that is not there",
            fix="Find the missing slices, or let the card's Contours be partial",
        )
    off = float(np.abs(points[:, 2] - round(z)).max())
    if off > _OFF_SLICE:
        raise CaseError(
            "contour_plane",
            expected="contours that lie on the series' slices",
            found=f"a contour {off:.2f} of the slice distance beside the nearest",
            fix="Draw the contours on this series, or name the series that they were drawn on",
        )
    if points[:, :2].min() < -1.0 or (points[:, :2] > np.array(lattice.size[:2])).any():
        raise CaseError(
            "mask_grid",
            expected="contours inside the series' slices",
            found="a contour that leaves the picture",
            fix="Find the series that the contours were drawn on",
        )
    return round(z), points[:, :2]


def _plane(parts: list[tuple[Mask, bool]]) -> Mask:
    """One slice of a region from its filled contours, each with whether it is to be combined by exclusive or."""
    seen: list[Mask] = []
    mask = np.zeros_like(parts[0][0])
    for part, xor in sorted(parts, key=lambda item: -int(item[0].sum())):
        if not xor and any(np.array_equal(part, other) for other in seen):
            continue
        seen.append(part)
        inside = not (part & ~mask).any()
        mask = mask ^ part if xor or inside else mask | part
    return mask


def fill(points: Vector, shape: tuple[Any, ...]) -> Mask:
    """Pixels (rows, columns) whose centre lies inside a closed polygon of (x, y) points, by the even-odd rule.

    Pixel centres have whole coordinates. A centre on an edge counts once among polygons that share the edge.
    """
    rows, columns = int(shape[0]), int(shape[1])
    flips = np.zeros((rows, columns + 1), dtype=np.uint8)
    ends = np.roll(points, -1, axis=0)
    for (x0, y0), (x1, y1) in zip(points, ends, strict=True):
        if y0 == y1:
            continue
        low, high = min(y0, y1), max(y0, y1)
        lines = np.arange(max(0, math.ceil(low)), min(rows, math.ceil(high)))
        crossing = x0 + (lines - y0) * (x1 - x0) / (y1 - y0)
        at = np.clip(np.ceil(crossing), 0, columns).astype(np.int64)
        flips[lines, at] ^= 1  # one edge crosses a line of pixels once, so no place is flipped twice here
    return np.asarray(np.bitwise_xor.accumulate(flips[:, :columns], axis=1).astype(bool))
