"""Whole volumes put together from what the slices said, and measured on their original grid.

A slice that says neither that a concept is there nor that it is not is empty in truth and prediction alike: nothing is
known of it. A volume of which not all slices were asked (a thinned evaluation) is not measured.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from preprocessing import schema
from preprocessing.schema import rle
from preprocessing.schema.grid import is_sheared, spacing_zyx, to_original_grid
from training.decode import union_of
from training.metrics import dice_iou
from training.prepared import objects_by_concept
from training.scoring.surface import nsd_hd95

Mask = NDArray[np.bool_]
Said = dict[tuple[str, str, str, str], dict[int, str]]
"""(case, axis, model, concept) -> slice index -> RLE of the predicted mask."""

VOLUMES_SCHEMA = pa.schema(
    [
        *(pa.field(name, pa.string()) for name in ("dataset", "modality", "case_id", "group_id", "axis", "concept")),
        pa.field("model", pa.string()),
        pa.field("present", pa.bool_()),
        pa.field("dice", pa.float64()),
        pa.field("nsd", pa.float64()),
        pa.field("hd95_mm", pa.float64()),
        pa.field("truth_voxels", pa.int64()),
        pa.field("predicted_voxels", pa.int64()),
        pa.field("voxel_mm3", pa.float64()),
    ]
)
NO_CASE, NO_SPACING, THINNED, GRID = (
    "no original grid is recorded",
    "its spacing is not known",
    "not all of its slices were asked",
    "its slices do not fill its grid",
)
SHEARED = "its original grid is sheared, as of a CT with a tilted gantry: its voxels are no boxes"
_COLUMNS = ["case_id", "group_id", "modality", "split", "axis", "slice_index", "height", "width", "objects", "absent"]


def said_of(slices: Iterable[Mapping[str, Any]]) -> Said:
    """Predictions of slices (`training.evaluate.Found.slices`) of one dataset by volume."""
    found: Said = {}
    for one in slices:
        key = (one["case_id"], one["axis"], one["model"], one["concept"])
        found.setdefault(key, {})[one["slice_index"]] = one["rle"]
    return found


def measure_cases(
    folder: Path, split: str, said: Said, cases: Sequence[str], tolerance_mm: float
) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    """Rows (VOLUMES_SCHEMA) of cases of a dataset version, and (case, reason) of those that cannot be measured."""
    grids = _grids(folder, cases)
    rows: list[dict[str, Any]] = []
    refused: list[tuple[str, str]] = []
    for (case_id, axis), planes in _planes(folder, split, cases):
        mine = {key[2:]: value for key, value in said.items() if key[:2] == (case_id, axis)}
        reason = _refused(planes, grids.get(case_id), mine)
        if reason:
            refused.append((case_id, reason))
        elif mine:
            rows += _measure(folder.name, planes, grids[case_id], mine, tolerance_mm)
    return rows, refused


def volume_of(planes: Mapping[int, Mask], axis: str, case_row: Mapping[str, Any]) -> Mask:
    """Masks (height, width) by slice index put on the case's original grid (z, y, x); slices left out are empty."""
    shape = [int(value) for value in reversed(case_row["harmonized_size_xyz"])]
    volume = np.zeros(shape, dtype=bool)
    across = np.moveaxis(volume, "zyx".index(axis), 0)  # a view
    for index, plane in planes.items():
        across[index] = plane
    return np.asarray(to_original_grid(volume, case_row))


def _measure(
    dataset: str,
    planes: Sequence[dict[str, Any]],
    case_row: Mapping[str, Any],
    said: Mapping[tuple[str, str], Mapping[int, str]],
    tolerance_mm: float,
) -> Iterator[dict[str, Any]]:
    first, spacing = planes[0], spacing_zyx(case_row)
    size = {row["slice_index"]: (row["height"], row["width"]) for row in planes}
    assert spacing is not None
    for concept, group in itertools.groupby(sorted(said, key=lambda key: key[::-1]), key=lambda key: key[1]):
        true = {
            row["slice_index"]: union_of([item["rle"] for item in items], row["height"], row["width"])
            for row in planes
            if (items := objects_by_concept(row).get(concept))
        }
        truth = volume_of(true, first["axis"], case_row)
        for model, _ in group:
            masks = {index: rle.decode(text, *size[index]) for index, text in said[model, concept].items()}
            predicted = volume_of(masks, first["axis"], case_row)
            present = bool(truth.any())
            nsd, hd95 = nsd_hd95(truth, predicted, spacing, tolerance_mm) if present else (None, None)
            yield {
                "dataset": dataset,
                "modality": first["modality"],
                "case_id": first["case_id"],
                "group_id": first["group_id"],
                "axis": first["axis"],
                "concept": concept,
                "model": model,
                "present": present,
                "dice": dice_iou(truth, predicted)[0],
                "nsd": nsd,
                "hd95_mm": hd95,
                "truth_voxels": int(truth.sum()),
                "predicted_voxels": int(predicted.sum()),
                "voxel_mm3": float(np.prod(spacing)),
            }


def _refused(
    planes: Sequence[Mapping[str, Any]],
    case_row: Mapping[str, Any] | None,
    said: Mapping[tuple[str, str], Mapping[int, str]],
) -> str | None:
    if case_row is None:
        return NO_CASE
    if spacing_zyx(case_row) is None or not case_row["original_direction"]:
        return NO_SPACING
    if is_sheared(case_row):
        return SHEARED
    size = [int(value) for value in reversed(case_row["harmonized_size_xyz"])]
    count = size.pop("zyx".index(planes[0]["axis"]))
    if any([row["height"], row["width"]] != size or not 0 <= row["slice_index"] < count for row in planes):
        return GRID
    known = {
        (concept, row["slice_index"])
        for row in planes
        for concept in {*(item["concept"] for item in row["objects"]), *row["absent"]}
    }
    for model in {model for model, _ in said}:
        asked = {(concept, index) for (one, concept), found in said.items() if one == model for index in found}
        if asked != known:
            return THINNED
    return None


def _grids(folder: Path, cases: Sequence[str]) -> dict[str, dict[str, Any]]:
    file = folder / schema.CASES_FILE
    if not file.is_file():
        return {}
    table = pq.read_table(file, filters=pc.field("case_id").isin(list(cases)))
    return {row["case_id"]: row for row in table.to_pylist() if row["dimensions"] == 3}


def _planes(folder: Path, split: str, cases: Sequence[str]) -> Iterator[tuple[tuple[str, str], list[dict[str, Any]]]]:
    """Manifest rows of each stack of slices, by case and axis."""
    wanted = pc.field("case_id").isin(list(cases)) & (pc.field("split") == split) & pc.field("slice_index").is_valid()
    rows = pq.read_table(folder / schema.MANIFEST_FILE, columns=_COLUMNS, filters=wanted).to_pylist()
    rows.sort(key=lambda row: (row["case_id"], row["axis"], row["slice_index"]))
    for (case_id, axis), group in itertools.groupby(rows, key=lambda row: (row["case_id"], row["axis"])):
        yield (case_id, axis), list(group)
