"""Distances between the surfaces of two masks in millimetres: normalised surface distance and Hausdorff distance.

A surface is the set of a mask's voxels that touch, face to face, a voxel outside of it or the end of the grid; a
distance is that between the middles of voxels (MONAI's and Metrics Reloaded's definition: Maier-Hein et al. 2024,
doi:10.1038/s41592-023-02151-z).

Empty cases: both masks empty, NSD 1 and HD95 0; one empty, NSD 0 and HD95 the diagonal of the grid, which no distance
in it exceeds: a miss is worse than any mistake, and stays a number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Values = NDArray[np.float64]

PERCENTILE = 95
_PAIRS = 1 << 22  # distances in memory at a time, without scipy


def surface_of(mask: Mask) -> Mask:
    """The mask's voxels that touch, face to face, what is not in it; the grid's end counts as outside."""
    padded = np.pad(mask, 1)
    core = mask.copy()
    middle = slice(1, -1)
    for axis in range(mask.ndim):
        for side in (slice(None, -2), slice(2, None)):
            core &= padded[tuple(side if one == axis else middle for one in range(mask.ndim))]
    return mask & ~core


def surface_distances(truth: Mask, predicted: Mask, spacing_mm: Sequence[float]) -> tuple[Values, Values]:
    """Of each surface voxel of the truth the distance to the prediction's surface, in mm, and the other way round.

    Args:
        truth: mask of any number of axes, not empty.
        predicted: mask of the same shape, not empty.
        spacing_mm: of the axes, in their order.
    """
    box = _box(truth | predicted)
    one, other = (np.argwhere(surface_of(mask[box])) * np.asarray(spacing_mm) for mask in (truth, predicted))
    return nearest(one, other), nearest(other, one)


def nearest(points_mm: Values, others_mm: Values) -> Values:
    """Distance of each point (points, axes) to the nearest of others (others, axes)."""
    try:
        from scipy.spatial import cKDTree
    except ModuleNotFoundError:  # a machine that has the training core's packages alone: slow, and as exact
        at_once = max(1, _PAIRS // len(others_mm))
        parts = [
            np.sqrt(((points_mm[first : first + at_once, None] - others_mm) ** 2).sum(axis=2).min(axis=1))
            for first in range(0, len(points_mm), at_once)
        ]
        return np.concatenate(parts)
    return np.asarray(cKDTree(others_mm).query(points_mm)[0], dtype=np.float64)


def nsd_hd95(truth: Mask, predicted: Mask, spacing_mm: Sequence[float], tolerance_mm: float) -> tuple[float, float]:
    """Normalised surface distance (0 to 1) and 95th percentile Hausdorff distance in mm.

    NSD (Nikolov et al. 2018, arXiv:1809.04430): the share of both surfaces that lies within `tolerance_mm` of the
    other. HD95: of each surface the 95th percentile of its distances to the other, and of the two the larger.

    ValueError for masks of different shapes and for a spacing or tolerance that is no length.
    """
    _check(truth, predicted, spacing_mm, tolerance_mm)
    if not truth.any() or not predicted.any():
        both = not truth.any() and not predicted.any()
        return (1.0, 0.0) if both else (0.0, diagonal_mm(truth.shape, spacing_mm))
    there, back = surface_distances(truth, predicted, spacing_mm)
    within = int((there <= tolerance_mm).sum()) + int((back <= tolerance_mm).sum())
    worst = max(float(np.percentile(there, PERCENTILE)), float(np.percentile(back, PERCENTILE)))
    return within / (there.size + back.size), worst


def diagonal_mm(shape: Sequence[int], spacing_mm: Sequence[float]) -> float:
    """From one corner of a grid to the opposite one, over the whole of its voxels."""
    return math.sqrt(sum((count * step) ** 2 for count, step in zip(shape, spacing_mm, strict=True)))


def _box(mask: Mask) -> tuple[slice, ...]:
    found = []
    for axis in range(mask.ndim):
        on = np.flatnonzero(mask.any(axis=tuple(one for one in range(mask.ndim) if one != axis)))
        found.append(slice(int(on[0]), int(on[-1]) + 1))
    return tuple(found)


def _check(truth: Mask, predicted: Mask, spacing_mm: Sequence[float], tolerance_mm: float) -> None:
    if truth.shape != predicted.shape:
        msg = f"masks must have one shape, found {truth.shape} and {predicted.shape}"
        raise ValueError(msg)
    if len(spacing_mm) != truth.ndim or not all(0 < step < math.inf for step in spacing_mm):
        msg = f"expected a spacing in mm above 0 for each of {truth.ndim} axes, found {tuple(spacing_mm)}"
        raise ValueError(msg)
    if not 0 <= tolerance_mm < math.inf:
        msg = f"expected a tolerance in mm of at least 0, found {tolerance_mm}"
        raise ValueError(msg)
