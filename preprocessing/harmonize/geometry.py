"""Grids: bring a volume to one axis order and spacing, compare image and mask, choose slices, and go back.

By default no voxel is resampled: harmonizing permutes and flips axes, so counts stay exact and the way
back is exact. Two things resample: a card that asks for a spacing, and a gantry tilt, whose slices do not
lie above each other. Then images are interpolated linearly, masks by nearest neighbour in both directions.
World coordinates are LPS millimetres, as SimpleITK gives them; sizes and spacings are (x, y, z),
arrays (z, y, x).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from infra.errors import CaseError
from preprocessing.readers import MAX_VOXELS, too_large

# Axes whose cosine is larger are not at right angles. Rounded headers stay far below, tilted gantries above.
SHEAR_TOLERANCE = 5e-4
# Corners of image and mask may lie this share of the finest spacing apart; headers round.
_GRID_TOLERANCE = 0.05


def orient(image: sitk.Image, orientation: str) -> sitk.Image:
    """The same voxels with axes in the order and direction of e.g. "LPS"; an oblique volume stays oblique."""
    return sitk.DICOMOrient(image, orientation)


def orientation_of(image: sitk.Image) -> str:
    """The nearest axis code of a volume, e.g. "RAS", in the letters of DICOMOrient (the axis points TO the letter)."""
    code: str = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(image.GetDirection())
    return code


def shear_of(image: sitk.Image) -> float:
    """The largest cosine between two axes of a volume: 0 where all are at right angles."""
    axes = np.array(image.GetDirection()).reshape(3, 3)
    return float(np.abs(axes.T @ axes - np.eye(3)).max())


def regrid(image: sitk.Image, spacing_mm_zyx: Sequence[float] | None = None) -> sitk.Image:
    """The volume with axes at right angles and the given spacing; the same object where both hold already.

    A spacing of 0 keeps that axis. The new grid has the old one's middle and covers all of it.
    Raises CaseError `too_large`.
    """
    straight = _straighten(image)
    return straight if spacing_mm_zyx is None else _respace(straight, spacing_mm_zyx)


def regrid_mask(mask_zyx: NDArray[np.bool_], source: sitk.Image, target: sitk.Image) -> NDArray[np.bool_]:
    """A mask on the grid of `source` put onto the grid of `target`: each voxel takes its nearest neighbour's."""
    if target is source:
        return mask_zyx
    image = sitk.GetImageFromArray(mask_zyx.astype(np.uint8))
    image.CopyInformation(source)
    array: NDArray[Any] = sitk.GetArrayFromImage(_nearest(image, target))
    return array.astype(bool)


def _straighten(image: sitk.Image) -> sitk.Image:
    """A sheared stack (gantry tilt) on a grid at right angles that keeps in-plane spacing and slice positions.

    The grid grows in-plane by as much as the slices slide; what no slice covers gets the darkest value.
    """
    if shear_of(image) <= SHEAR_TOLERANCE:
        return image
    axes = np.array(image.GetDirection()).reshape(3, 3)
    size, spacing = list(image.GetSize()), np.array(image.GetSpacing())
    normal = np.cross(axes[:, 0], axes[:, 1])
    normal *= np.sign(normal @ axes[:, 2]) / np.linalg.norm(normal)
    slide = (axes[:, 2] @ axes[:, :2]) * spacing[2] * (size[2] - 1) / spacing[:2]  # in pixels, first to last slice
    first = np.floor(np.minimum(slide, 0.0))
    size[:2] = [int(size[k] + np.ceil(max(slide[k], 0.0)) - first[k]) for k in range(2)]
    _check_size(size)
    origin = np.array(image.GetOrigin()) + axes[:, :2] @ (first * spacing[:2])
    return sitk.Resample(
        image,
        size,
        sitk.Transform(3, sitk.sitkIdentity),
        sitk.sitkLinear,
        origin.tolist(),
        [float(spacing[0]), float(spacing[1]), float(spacing[2] * (normal @ axes[:, 2]))],
        np.stack([axes[:, 0], axes[:, 1], normal], axis=1).ravel().tolist(),
        float(sitk.GetArrayViewFromImage(image).min()),
        image.GetPixelID(),
    )


def _respace(image: sitk.Image, spacing_mm_zyx: Sequence[float]) -> sitk.Image:
    old, size = np.array(image.GetSpacing()), np.array(image.GetSize())
    wanted = np.array([float(value) for value in reversed(spacing_mm_zyx)])
    wanted = np.where(wanted > 0, wanted, old)
    if np.allclose(wanted, old, rtol=1e-3):
        return image
    # A little less than the whole: an extent that fits must not gain a voxel by rounding.
    new = np.maximum(1, np.ceil(size * old / wanted - 1e-3)).astype(int)
    _check_size(new.tolist())
    axes = np.array(image.GetDirection()).reshape(3, 3)
    offset = ((size - 1) * old - (new - 1) * wanted) / 2
    origin = np.array(image.GetOrigin()) + axes @ offset
    return sitk.Resample(
        image,
        new.tolist(),
        sitk.Transform(3, sitk.sitkIdentity),
        sitk.sitkLinear,
        origin.tolist(),
        wanted.tolist(),
        image.GetDirection(),
        0.0,
        image.GetPixelID(),
    )


def _nearest(image: sitk.Image, target: sitk.Image) -> sitk.Image:
    return sitk.Resample(image, target, sitk.Transform(3, sitk.sitkIdentity), sitk.sitkNearestNeighbor, 0.0)


def _check_size(size: list[int]) -> None:
    if math.prod(size) > MAX_VOXELS:
        raise too_large(math.prod(size), MAX_VOXELS, "voxels after resampling")


def check_same_grid(image: sitk.Image, mask: sitk.Image) -> None:
    """CaseError `mask_size` or `mask_grid` unless both cover the same voxels of the world.

    Call it after `orient`, so that a mask stored with other axis directions is compared where it lies.
    """
    if image.GetSize() != mask.GetSize():
        raise CaseError(
            "mask_size",
            expected=f"{_times(image.GetSize())} voxels (x, y, z), as the image",
            found=_times(mask.GetSize()),
            fix="Resample the mask onto the image's grid, or say `label_grid: own` where it is known to lie right",
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
            fix="Resample the mask onto the image's grid, or say `label_grid: own` where it is known to lie right",
        )


def onto_grid(mask: sitk.Image, image: sitk.Image) -> sitk.Image:
    """A label volume on the grid of `image`, each voxel of which takes the value nearest to its middle.

    Raises CaseError `mask_grid` where the label does not cover the middle of every voxel of the image: what was
    not looked at must not be read as "nothing there".
    """
    last = [size - 1 for size in image.GetSize()]
    outside = 0.0  # voxels of the label
    for corner in itertools.product(*((0, end) for end in last)):
        where = np.array(mask.TransformPhysicalPointToContinuousIndex(image.TransformIndexToPhysicalPoint(corner)))
        outside = max(outside, float((-0.5 - where).max()), float((where - np.array(mask.GetSize()) + 0.5).max()))
    if not outside <= _GRID_TOLERANCE:
        raise CaseError(
            "mask_grid",
            expected="a mask that covers the whole image (label_grid: own)",
            found=f"an image that reaches {outside:.1f} voxels beyond the mask",
            fix="Find the image that the mask was drawn on",
        )
    return _nearest(mask, image)


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


def unplaced(columns: dict[str, Any]) -> dict[str, Any]:
    """The columns of a volume whose voxels have no known size or place: sizes alone."""
    kept = ("dimensions", "original_size_xyz", "harmonized_size_xyz")
    return {name: value if name in kept else None for name, value in columns.items()}


def regrid_numbers(numbers_zyx: NDArray[Any], source: sitk.Image, target: sitk.Image) -> NDArray[Any]:
    """Instance numbers on the grid of `source` put onto the grid of `target`, by nearest neighbour."""
    if target is source:
        return numbers_zyx
    image = sitk.GetImageFromArray(numbers_zyx.astype(np.int32))
    image.CopyInformation(source)
    array: NDArray[Any] = sitk.GetArrayFromImage(_nearest(image, target))
    return array


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
    """Put an array on the harmonized grid (z, y, x) back on the case's original grid (z, y, x).

    Exact where the case was not resampled, else by nearest neighbour. `case_row` is a row of
    `cases.parquet`. Raises ValueError for an array of another size.
    """
    size = tuple(int(value) for value in case_row["harmonized_size_xyz"])
    if mask_zyx.shape != size[::-1]:
        msg = f"expected an array (z, y, x) of {size[::-1]}, found {mask_zyx.shape}"
        raise ValueError(msg)
    if case_row["dimensions"] == 2 or case_row["original_orientation"] is None:
        return mask_zyx
    is_bool = mask_zyx.dtype == bool
    image = sitk.GetImageFromArray(mask_zyx.astype(np.uint8) if is_bool else mask_zyx)
    _place(image, case_row, "harmonized")
    original = [int(value) for value in case_row["original_size_xyz"]]
    back = orient(image, str(case_row["original_orientation"]))
    if not _lies_on(back, case_row):
        goal = sitk.Image(original, sitk.sitkUInt8)
        _place(goal, case_row, "original")
        back = _nearest(image, goal)
    array: NDArray[Any] = sitk.GetArrayFromImage(back)
    return array.astype(bool) if is_bool else array


def _place(image: sitk.Image, case_row: Mapping[str, Any], grid: str) -> None:
    image.SetSpacing([float(value) for value in case_row[f"{grid}_spacing_mm_xyz"]])
    image.SetOrigin([float(value) for value in case_row[f"{grid}_origin_mm_xyz"]])
    image.SetDirection([float(value) for value in case_row[f"{grid}_direction"]])


def _lies_on(image: sitk.Image, case_row: Mapping[str, Any]) -> bool:
    """Whether a volume has the case's original grid, so that going back took no resampling."""
    return (
        list(image.GetSize()) == [int(value) for value in case_row["original_size_xyz"]]
        and np.allclose(image.GetSpacing(), case_row["original_spacing_mm_xyz"], rtol=1e-6)
        and np.allclose(image.GetDirection(), case_row["original_direction"], atol=1e-6)
        and np.allclose(image.GetOrigin(), case_row["original_origin_mm_xyz"], atol=1e-3 * min(image.GetSpacing()))
    )


def _times(size: tuple[int, ...]) -> str:
    return " x ".join(str(value) for value in size)
