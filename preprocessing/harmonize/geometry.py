"""Grids: bring a volume to one axis order, compare image and mask, choose the slicing axis, and go back.

No voxel is resampled: harmonizing permutes and flips axes, so counts stay exact and the way back is exact.
World coordinates are LPS millimetres, as SimpleITK gives them; sizes and spacings are (x, y, z),
arrays (z, y, x).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from infra.errors import CaseError

# Corners of image and mask may lie this share of the finest spacing apart; headers round.
_GRID_TOLERANCE = 0.05


def orient(image: sitk.Image, orientation: str) -> sitk.Image:
    """The same voxels with axes in the order and direction of e.g. "LPS"; an oblique volume stays oblique."""
    return sitk.DICOMOrient(image, orientation)


def orientation_of(image: sitk.Image) -> str:
    """The nearest axis code of a volume, e.g. "RAS", in the letters of DICOMOrient (the axis points TO the letter)."""
    code: str = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(image.GetDirection())
    return code


def check_same_grid(image: sitk.Image, mask: sitk.Image) -> None:
    """CaseError `mask_size` or `mask_grid` unless both cover the same voxels of the world.

    Call it after `orient`, so that a mask stored with other axis directions is compared where it lies.
    """
    if image.GetSize() != mask.GetSize():
        raise CaseError(
            "mask_size",
            expected=f"{_times(image.GetSize())} voxels (x, y, z), as the image",
            found=_times(mask.GetSize()),
            fix="Resample the mask onto the image's grid with nearest neighbour",
        )
    corner = [size - 1 for size in image.GetSize()]
    distance = 0.0
    for index in ([0, 0, 0], [corner[0], 0, 0], [0, corner[1], 0], [0, 0, corner[2]], corner):
        left = np.array(image.TransformIndexToPhysicalPoint(index))
        right = np.array(mask.TransformIndexToPhysicalPoint(index))
        distance = max(distance, float(np.abs(left - right).max()))
    if not distance <= _GRID_TOLERANCE * min(image.GetSpacing()):
        raise CaseError(
            "mask_grid",
            expected="a mask on the image's grid",
            found=f"corners up to {distance:.3f} mm apart",
            fix="Resample the mask onto the image's grid with nearest neighbour",
        )


def slicing_axis(spacing_xyz: tuple[float, ...]) -> str:
    """The axis of coarsest spacing, so that slices have the finest in-plane resolution; "z" on ties."""
    best = "z"
    for name in "yx":
        # Headers round: 1.0000001 mm is not coarser than 1 mm.
        if spacing_xyz["xyz".index(name)] > spacing_xyz["xyz".index(best)] * 1.001:
            best = name
    return best


def in_plane(spacing_xyz: tuple[float, ...], axis: str) -> tuple[float, float]:
    """Spacing in mm (rows, columns) of slices across `axis`. Rows and columns: z→(y, x), y→(z, x), x→(z, y)."""
    x, y, z = spacing_xyz
    return {"z": (y, x), "y": (z, x), "x": (z, y)}[axis]


def grid_columns(original: sitk.Image, harmonized: sitk.Image) -> dict[str, Any]:
    """The geometry columns of `CASES_SCHEMA` for a volume."""
    return {
        "dimensions": 3,
        "original_size_xyz": list(original.GetSize()),
        "original_spacing_mm_xyz": list(original.GetSpacing()),
        "original_origin_mm_xyz": list(original.GetOrigin()),
        "original_direction": list(original.GetDirection()),
        "original_orientation": orientation_of(original),
        "harmonized_size_xyz": list(harmonized.GetSize()),
        "harmonized_spacing_mm_xyz": list(harmonized.GetSpacing()),
        "harmonized_origin_mm_xyz": list(harmonized.GetOrigin()),
        "harmonized_direction": list(harmonized.GetDirection()),
    }


def flat_columns(height: int, width: int) -> dict[str, Any]:
    """The geometry columns of `CASES_SCHEMA` for a 2D image, which has no place in the world."""
    return {
        "dimensions": 2,
        "original_size_xyz": [width, height],
        "original_spacing_mm_xyz": None,
        "original_origin_mm_xyz": None,
        "original_direction": None,
        "original_orientation": None,
        "harmonized_size_xyz": [width, height],
        "harmonized_spacing_mm_xyz": None,
        "harmonized_origin_mm_xyz": None,
        "harmonized_direction": None,
    }


def to_original_grid(mask_zyx: NDArray[Any], case_row: Mapping[str, Any]) -> NDArray[Any]:
    """Put an array on the harmonized grid (z, y, x) back on the case's original grid (z, y, x), exactly.

    `case_row` is a row of `cases.parquet`. Raises ValueError for an array of another size.
    """
    size = tuple(int(value) for value in case_row["harmonized_size_xyz"])
    if mask_zyx.shape != size[::-1]:
        msg = f"expected an array (z, y, x) of {size[::-1]}, found {mask_zyx.shape}"
        raise ValueError(msg)
    if case_row["dimensions"] == 2:
        return mask_zyx
    is_bool = mask_zyx.dtype == bool
    image = sitk.GetImageFromArray(mask_zyx.astype(np.uint8) if is_bool else mask_zyx)
    image.SetSpacing([float(value) for value in case_row["harmonized_spacing_mm_xyz"]])
    image.SetOrigin([float(value) for value in case_row["harmonized_origin_mm_xyz"]])
    image.SetDirection([float(value) for value in case_row["harmonized_direction"]])
    back = orient(image, str(case_row["original_orientation"]))
    array: NDArray[Any] = sitk.GetArrayFromImage(back)
    return array.astype(bool) if is_bool else array


def _times(size: tuple[int, ...]) -> str:
    return " x ".join(str(value) for value in size)
