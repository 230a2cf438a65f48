"""The slices of one case put together again: pixels and masks on the harmonized grid, axes (z, y, x)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.errors import DataError
from preprocessing.harmonize.payload import decode
from preprocessing.schema import rle

Row = Mapping[str, Any]


def masks_of_row(row: Row) -> dict[str, NDArray[np.bool_]]:
    """The union of the objects of each concept, bool (height, width)."""
    masks: dict[str, NDArray[np.bool_]] = {}
    for item in row["objects"]:
        mask = rle.decode(item["rle"], row["height"], row["width"])
        concept = item["concept"]
        masks[concept] = masks[concept] | mask if concept in masks else mask
    return masks


def stack_masks(rows: Sequence[Row], case_row: Row) -> dict[str, NDArray[np.bool_]]:
    """Masks by concept of one case: (z, y, x) of the harmonized grid; for a 2D image (height, width).

    `case_row` is the case's row of `cases.parquet`. DataError where the rows are not all slices of the case.
    """
    planes = [masks_of_row(row) for row in in_order(rows, case_row)]
    shape = (int(rows[0]["height"]), int(rows[0]["width"]))
    found = {}
    for concept in sorted({concept for plane in planes for concept in plane}):
        empty = np.zeros(shape, dtype=bool)
        found[concept] = _put(rows, [plane.get(concept, empty) for plane in planes])
    return found


def stack_pixels(rows: Sequence[Row], case_row: Row) -> NDArray[np.uint8]:
    """Pixels of one case from rows with payload: as `stack_masks`, colours or windows last."""
    return stack_planes([decode(row["image"]) for row in in_order(rows, case_row)], rows, case_row)


def stack_planes(planes: Sequence[NDArray[Any]], rows: Sequence[Row], case_row: Row) -> NDArray[Any]:
    """One array (z, y, x, …) from a plane (height, width, …) for each slice, in the order of slices."""
    in_order(rows, case_row)
    return _put(rows, list(planes))


def in_order(rows: Sequence[Row], case_row: Row) -> list[Row]:
    """The rows of one case by slice, all of them; DataError where one is missing, twice there or of another size."""
    name = f"{case_row['dataset']}/{case_row['case_id']}"
    size = [int(value) for value in case_row["harmonized_size_xyz"]]
    ordered = sorted(rows, key=lambda row: row["slice_index"] or 0)
    expected: list[tuple[int | None, int, int]] = [(None, size[1], size[0])]
    if case_row["dimensions"] == 3:
        axis = ordered[0]["axis"] if ordered else "z"
        count, height, width = _plane_shape(size, axis)
        expected = [(index, height, width) for index in range(count)]
    found = [(row["slice_index"], row["height"], row["width"]) for row in ordered]
    if found != expected or len({row["axis"] for row in ordered}) > 1:
        msg = (
            f"{name}: expected {len(expected)} sample(s) of {expected[0][1]} x {expected[0][2]} pixels "
            f"(height x width) as cases.parquet says, found {len(found)}: {found[:3]} …"
        )
        raise DataError(msg)
    return ordered


def _plane_shape(size_xyz: Sequence[int], axis: str) -> tuple[int, int, int]:
    """Slices, rows and columns of a volume that is cut across `axis`."""
    shape = [size_xyz[2], size_xyz[1], size_xyz[0]]
    count = shape.pop("zyx".index(axis))
    return count, shape[0], shape[1]


def _put(rows: Sequence[Row], planes: list[NDArray[Any]]) -> NDArray[Any]:
    axis = rows[0]["axis"]
    if axis is None:
        return planes[0]
    return np.moveaxis(np.stack(planes), 0, "zyx".index(axis))
