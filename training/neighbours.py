"""2.5D: a grey slice of a volume with the slices beside it as its colour channels (below, itself, above).

What a neighbour is: of slice i, with a step of n, the row of the same case and axis whose `slice_index` is i − n or
i + n, in whichever shard it lies and whether anything is labelled on it or not. Where there is no such row, because
the volume ends there or a slice was left out, it is the farthest row between that place and the slice, and where
there is none, the slice itself: the edge is repeated. No case lies in two splits, so that a neighbour is of the
slice's split. Pictures without a slice index and slices in colours have no neighbours and stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from preprocessing import schema
from training.decode import Pixels, decode_image
from training.shard_rows import ShardRows
from training.store import ShardFile

Picture = Callable[[dict[str, Any], int | None], Pixels]
"""A shard row and a size to (height, width, 1 or 3) uint8, resized to (size, size) where there is one."""

_VOLUME_COLUMNS = ["case_id", "axis", "slice_index"]


def beside(volumes: NDArray[np.int64], slices: NDArray[np.int64], step: int) -> NDArray[np.int64]:
    """Numbers of the rows below and above each row, (rows, 2).

    Args:
        volumes: (rows,) number of the volume (case and axis) that a row is cut from; below 0 for no volume.
        slices: (rows,) slice index, any order, gaps allowed.
        step: slices from a slice to its neighbours, at least 1.
    """
    rows = np.arange(volumes.size)
    found = np.stack([rows, rows], axis=1)
    cut = np.flatnonzero(volumes >= 0)
    if not cut.size:
        return found
    # one number a row, in which volumes lie so far apart that a step never leads from one into the next
    places = slices[cut] - slices[cut].min() + step
    along = volumes[cut] * (int(places.max()) + 2 * step + 1) + places
    order = np.argsort(along, kind="stable")
    ordered = along[order]
    found[cut, 0] = cut[order[np.searchsorted(ordered, along - step, side="left")]]
    found[cut, 1] = cut[order[np.searchsorted(ordered, along + step, side="right") - 1]]
    return found


def numbered(keys: Sequence[tuple[Any, ...] | None]) -> NDArray[np.int64]:
    """A number for each distinct key, −1 for None."""
    numbers: dict[tuple[Any, ...], int] = {}
    return np.array([-1 if key is None else numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def beside_of(table: pa.Table, step: int) -> NDArray[np.int64]:
    """`beside` of rows with the columns `case_id`, `axis` and `slice_index` of a manifest."""
    case, axis = (
        table.column(name).combine_chunks().dictionary_encode(null_encoding="encode").indices.to_numpy()
        for name in ("case_id", "axis")
    )
    index = table.column("slice_index")
    volumes = case.astype(np.int64) * (int(axis.max(initial=0)) + 1) + axis
    volumes[index.is_null().to_numpy()] = -1
    return beside(volumes, pc.fill_null(index, 0).to_numpy().astype(np.int64), step)


def stacked(below: Pixels, middle: Pixels, above: Pixels) -> Pixels:
    """Three grey slices (height, width, 1) as the channels of one (height, width, 3) picture."""
    return np.concatenate([below[..., :1], middle[..., :1], above[..., :1]], axis=-1)


def stacks_of_volume(slices: Sequence[Pixels], step: int, indices: Sequence[int] | None = None) -> list[Pixels]:
    """The slices of a whole volume in memory, (height, width[, channels]) each, with their neighbours as channels.

    `indices` are their slice indices, for volumes in which some are left out; without them none is.
    """
    if step < 1:
        return list(slices)
    places = np.arange(len(slices)) if indices is None else np.asarray(indices, dtype=np.int64)
    around = beside(np.zeros(len(slices), dtype=np.int64), places, step)
    solid = [each if each.ndim == 3 else each[..., None] for each in slices]
    return [
        stacked(solid[below], middle, solid[above]) if middle.shape[-1] == 1 else middle
        for middle, (below, above) in zip(solid, around.tolist(), strict=True)
    ]


def pictures(shard: ShardFile, split: str, step: int, preprocessing: str) -> Picture:
    """What a model that was trained with `step` neighbours sees of a shard's rows; step 0: the rows' own pictures.

    Resized as the model was trained (`preprocessing` of its config.json).
    """
    if step < 1:
        return lambda row, size: decode_image(row["image"], size, preprocessing)
    return _Stacks(shard.path.parent, split, step, preprocessing)


class _Stacks:
    """Rows of a local dataset version with their neighbours, which may lie in other shards."""

    def __init__(self, folder: Path, split: str, step: int, preprocessing: str) -> None:
        self._preprocessing = preprocessing
        columns = ["sample_id", "split", "shard", "row", *_VOLUME_COLUMNS]
        table = pq.read_table(folder / schema.MANIFEST_FILE, columns=columns)
        table = table.filter(pc.equal(table.column("split"), split))
        self._number = {name: number for number, name in enumerate(table.column("sample_id").to_pylist())}
        self._beside = beside_of(table, step)
        self._places = list(zip(table.column("shard").to_pylist(), table.column("row").to_pylist(), strict=True))
        self._rows = ShardRows(folder, ["image"])

    def __call__(self, row: dict[str, Any], size: int | None) -> Pixels:
        middle = decode_image(row["image"], size, self._preprocessing)
        if row["slice_index"] is None or middle.shape[-1] != 1:
            return middle
        number = self._number[row["sample_id"]]
        below, above = (
            middle
            if other == number
            else decode_image(self._rows.row(*self._places[other])["image"], size, self._preprocessing)
            for other in self._beside[number].tolist()
        )
        return stacked(below, middle, above)
