"""Whole volumes of a dataset version, put together from the rows of their slices."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from preprocessing import schema
from training.decode import Pixels, decode_image, union_of
from training.prepared import objects_by_concept
from training.shard_rows import ShardRows

Mask = NDArray[np.bool_]

_ROW = ["height", "width", "image", "objects", "absent"]


@dataclass
class Volume:
    """The slices of one case along one axis, in the order of their index."""

    dataset: str
    case_id: str
    group_id: str
    axis: str
    indices: list[int]  # slice index of each slice, ascending
    pixels: list[Pixels]  # each (height, width, 1 or 3) uint8
    truth: dict[str, Mask]  # concept -> (slices, height, width); every concept that some slice names
    known: dict[str, Mask]  # concept -> (slices,) whether the slice says that it is there or that it is not


def volumes_of(data_root: Path, dataset: str, split: str, *, least_slices: int = 2, most: int = 0) -> Iterator[Volume]:
    """The volumes of a split, by case, one in memory at a time.

    Args:
        data_root: folder of dataset versions.
        dataset: name of the version.
        split: train, val or test.
        least_slices: volumes with fewer are left out: one slice is a picture.
        most: volumes at most, the first by case; 0: all.
    """
    folder = data_root / dataset
    columns = ["case_id", "group_id", "axis", "slice_index", "split", "shard", "row"]
    table = pq.read_table(folder / schema.MANIFEST_FILE, columns=columns)
    cut = pc.and_(pc.equal(table.column("split"), split), pc.is_valid(table.column("slice_index")))
    parts: dict[tuple[str, str, str], list[tuple[int, str, int]]] = {}
    for row in table.filter(cut).to_pylist():
        key = (row["case_id"], row["axis"] or "", row["group_id"])
        parts.setdefault(key, []).append((row["slice_index"], row["shard"], row["row"]))
    rows = ShardRows(folder, _ROW)
    long = [key for key in sorted(parts) if len(parts[key]) >= least_slices]
    for case_id, axis, group_id in long[:most] if most else long:
        places = sorted(parts[case_id, axis, group_id])
        yield _read(rows, dataset, case_id, group_id, axis, places)


def _read(
    rows: ShardRows, dataset: str, case_id: str, group_id: str, axis: str, places: list[tuple[int, str, int]]
) -> Volume:
    found = [rows.row(shard, number) for _, shard, number in places]
    height, width = found[0]["height"], found[0]["width"]
    named = sorted(
        {item["concept"] for row in found for item in row["objects"]}
        | {name for row in found for name in row["absent"]}
    )
    truth = {concept: np.zeros((len(found), height, width), dtype=bool) for concept in named}
    known = {concept: np.zeros(len(found), dtype=bool) for concept in named}
    for number, row in enumerate(found):
        for concept, items in objects_by_concept(row).items():
            truth[concept][number] = union_of([item["rle"] for item in items], height, width)
            known[concept][number] = True
        for concept in row["absent"]:
            known[concept][number] = True
    pixels = [decode_image(row["image"]) for row in found]
    return Volume(dataset, case_id, group_id, axis, [place for place, _, _ in places], pixels, truth, known)
