"""A mask on the harmonized grid of a volume put back on its original grid, in numpy alone.

`preprocessing.harmonize.geometry.to_original_grid` does it with SimpleITK, which machines that evaluate need not have;
tests hold the two against each other. Harmonizing turns, flips and resamples axes, so that each original axis runs
along one harmonized axis, also in an oblique volume. Where it also made a sheared volume straight (a CT with a tilted
gantry), `is_sheared` says so: those are for SimpleITK alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

_ALONG = 1e-3  # voxels that an axis may drift off the one it runs along, over its whole length
_SQUARE = 5e-4  # cosine between two axes, as harmonization has it
_HALF = 1e-6  # voxels: halves are rounded up, as ITK does, also where arithmetic leaves them a hair below


def to_original_grid(mask_zyx: NDArray[Any], case_row: Mapping[str, Any]) -> NDArray[Any]:
    """An array (z, y, x) on the harmonized grid at the nearest voxels of the original grid (z, y, x); 0 outside.

    Exact where the case was not resampled. `case_row` is a row of `cases.parquet`. ValueError for an array of
    another size and for grids whose axes do not run along one another.
    """
    size = tuple(int(value) for value in case_row["harmonized_size_xyz"])
    if mask_zyx.shape != size[::-1]:
        msg = f"expected an array (z, y, x) of {size[::-1]}, found {mask_zyx.shape}"
        raise ValueError(msg)
    if case_row["dimensions"] == 2 or case_row["original_orientation"] is None:
        return mask_zyx
    from_matrix, from_origin = _affine(case_row, "harmonized")
    to_matrix, to_origin = _affine(case_row, "original")
    step = np.linalg.solve(from_matrix, to_matrix)  # harmonized voxels a step of each original axis
    begin = np.linalg.solve(from_matrix, to_origin - from_origin)
    goal = [int(value) for value in case_row["original_size_xyz"]]
    along = [int(axis) for axis in np.abs(step).argmax(axis=0)]  # the harmonized axis of each original one
    beside = step.copy()
    beside[along, range(3)] = 0
    if sorted(along) != [0, 1, 2] or float(np.abs(beside @ np.array(goal)).max()) > _ALONG:
        msg = f"expected a harmonized grid whose axes run along the original ones, found steps {step.round(4).tolist()}"
        raise ValueError(msg)
    result, inside = mask_zyx, []
    for axis, count in enumerate(goal):
        source = along[axis]
        index = np.floor(begin[source] + step[source, axis] * np.arange(count) + 0.5 + _HALF).astype(np.int64)
        inside.append((index >= 0) & (index < size[source]))
        result = result.take(index.clip(0, size[source] - 1), axis=2 - source)
    result = result.transpose([2 - along[2], 2 - along[1], 2 - along[0]])
    kept = inside[2][:, None, None] & inside[1][:, None] & inside[0]
    return np.where(kept, result, np.zeros((), dtype=result.dtype))


def is_sheared(case_row: Mapping[str, Any]) -> bool:
    """Whether the original grid's axes do not stand at right angles: voxels are then no boxes with a spacing."""
    direction = np.array(case_row["original_direction"], dtype=np.float64).reshape(3, 3)
    return bool(np.abs(direction.T @ direction - np.eye(3)).max() > _SQUARE)


def spacing_zyx(case_row: Mapping[str, Any]) -> tuple[float, float, float] | None:
    """Millimetres between voxels of the original grid; None where nobody knows."""
    known = case_row["original_spacing_mm_xyz"]
    if not known or len(known) != 3:
        return None
    x, y, z = (float(value) for value in known)
    return z, y, x


def _affine(case_row: Mapping[str, Any], grid: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Columns in mm of a step along each axis (x, y, z), and the first voxel's place."""
    direction = np.array(case_row[f"{grid}_direction"], dtype=np.float64).reshape(3, 3)
    spacing = np.array(case_row[f"{grid}_spacing_mm_xyz"], dtype=np.float64)
    return direction * spacing, np.array(case_row[f"{grid}_origin_mm_xyz"], dtype=np.float64)
