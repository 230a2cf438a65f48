"""Which rows of which shards belong to a split: read from the manifest, without touching a shard."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from infra.errors import DataError
from preprocessing import schema
from training.neighbours import beside_of
from training.shard_order import BLOCK_ROWS
from training.store import ShardFile, ShardStore


@dataclass(frozen=True)
class ShardIndex:
    """The rows of one dataset's split: one bit a row and a few numbers a block of `BLOCK_ROWS` rows."""

    dataset: str
    split: str
    shards: list[ShardFile]
    chosen: list[NDArray[np.uint8]]  # per shard: bits of its rows, packed; 1 where the row is in the split
    block_shard: NDArray[np.int32]
    block_first: NDArray[np.int64]  # row of the shard at which the block begins
    block_samples: NDArray[np.int32]  # rows of the split in the block; blocks without any are left out
    first_row: NDArray[np.int64]  # (shards + 1,) of each shard, counted on over all of them, and their total
    beside: NDArray[np.int64] | None = (
        None  # (rows, 2) those below and above, counted so; of 2.5D alone, 16 bytes a row
    )

    def rows(self, block: int) -> NDArray[np.int64]:
        """Rows of the shard that are the block's samples."""
        first = int(self.block_first[block])
        bits = self.chosen[int(self.block_shard[block])][first // 8 : (first + BLOCK_ROWS) // 8]
        return first + np.flatnonzero(np.unpackbits(bits))

    def rows_in(self, shard: int) -> int:
        """Rows of a shard, samples or not."""
        return int(self.first_row[shard + 1] - self.first_row[shard])

    @cached_property
    def _begins(self) -> NDArray[np.int64]:
        """Of each block, counted over all shards; ascending."""
        begins: NDArray[np.int64] = self.first_row[self.block_shard] + self.block_first
        return begins

    def place(self, row: int) -> tuple[int, int]:
        """(shard, row in it) of a row counted over all shards."""
        shard = int(np.searchsorted(self.first_row, row, side="right")) - 1
        return shard, row - int(self.first_row[shard])

    def sample(self, row: int) -> tuple[int, int] | None:
        """(block, number in it) of such a row; None where it is no sample."""
        shard, at = self.place(row)
        block = int(np.searchsorted(self._begins, row, side="right")) - 1
        if block < 0 or self.block_shard[block] != shard:
            return None
        rows = self.rows(block)
        number = int(np.searchsorted(rows, at))
        return (block, number) if number < rows.size and rows[number] == at else None


def index_split(
    store: ShardStore, dataset: str, split: str, *, with_objects: bool = False, neighbours: int = 0
) -> ShardIndex:
    """Index a split of a dataset version, or of it the rows that have an object.

    `neighbours` > 0: also where each slice's neighbours lie; these may be rows without an object.

    DataError where its manifest and its record do not fit together.
    """
    folder = store.folder(dataset)
    shards = store.shards(dataset)
    rows = {name: int(entry["rows"]) for name, entry in schema.read_dataset_file(folder)["shards"].items()}
    numbers = {shard.path.name: number for number, shard in enumerate(shards)}
    chosen = [np.zeros(rows[shard.path.name], dtype=bool) for shard in shards]
    counted = 0
    columns = ["shard", "row", "split", *(["objects"] if with_objects else [])]
    with pq.ParquetFile(folder / schema.MANIFEST_FILE) as manifest:
        for batch in manifest.iter_batches(columns=columns):
            counted += batch.num_rows
            ours = batch.filter(pc.equal(batch.column("split"), split))
            if with_objects:
                ours = ours.filter(pc.greater(pc.list_value_length(ours.column("objects")), 0))
            names = ours.column("shard").dictionary_encode()
            at = ours.column("row").to_numpy()
            which = names.indices.to_numpy()
            for number, name in enumerate(names.dictionary.to_pylist()):
                mine = at[which == number]
                if name not in numbers or (mine.size and int(mine.max()) >= rows[name]):
                    raise _unfit(dataset, f"a row of {name}")
                chosen[numbers[name]][mine] = True
    if counted != sum(rows.values()):
        raise _unfit(dataset, f"{counted} rows for {sum(rows.values())} in the shards")
    first_row = np.cumsum([0, *(bits.size for bits in chosen)], dtype=np.int64)
    shard_of, first_of, count_of = [], [], []
    for number, bits in enumerate(chosen):
        firsts = np.arange(0, bits.size, BLOCK_ROWS)
        counts = np.add.reduceat(bits, firsts, dtype=np.int32) if bits.size else np.zeros(0, np.int32)
        kept = np.flatnonzero(counts)
        shard_of.append(np.full(kept.size, number, dtype=np.int32))
        first_of.append(firsts[kept].astype(np.int64))
        count_of.append(counts[kept])
    return ShardIndex(
        dataset,
        split,
        shards,
        [np.packbits(bits) for bits in chosen],
        np.concatenate([np.zeros(0, np.int32), *shard_of]),
        np.concatenate([np.zeros(0, np.int64), *first_of]),
        np.concatenate([np.zeros(0, np.int32), *count_of]),
        first_row,
        _beside(folder, split, numbers, first_row, neighbours) if neighbours else None,
    )


def _beside(
    folder: Path, split: str, numbers: dict[str, int], first_row: NDArray[np.int64], step: int
) -> NDArray[np.int64]:
    columns = ["shard", "row", "split", "case_id", "axis", "slice_index"]
    table = pq.read_table(folder / schema.MANIFEST_FILE, columns=columns)
    rows = np.arange(table.num_rows)
    found = np.stack([rows, rows], axis=1)
    ours = table.filter(pc.equal(table.column("split"), split))
    names = ours.column("shard").combine_chunks().dictionary_encode()
    shard = np.array([numbers[name] for name in names.dictionary.to_pylist()], dtype=np.int64)
    at = ours.column("row").to_numpy()
    if at.size:
        at = at + first_row[shard[names.indices.to_numpy()]]
        found[at] = at[beside_of(ours, step)]
    return found


def _unfit(dataset: str, found: str) -> DataError:
    return DataError(
        f"{dataset}: {schema.MANIFEST_FILE}: expected the rows of the shards that {schema.DATASET_FILE} lists, "
        f"found {found}. The files are of different versions: run `dvc checkout --force`, or ingest {dataset} again"
    )
