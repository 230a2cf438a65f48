"""Samples straight from shards, local or remote: nothing is prepared, memory and disk are bounded.

A block (a row group) is read whole and held, encoded, until `buffer_bytes` ask for its place; `ShardOrder` sees to
it that its samples come close to each other. Decoding is left to whoever asks: threads may ask for different
samples at a time, and a block that several of them need is read once.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from infra.errors import DataError
from infra.storage import digest_of
from preprocessing.schema import rle
from training.decode import Pixels, coverage, decode_image, instance_coverage, union_of
from training.neighbours import stacked
from training.order import SCHEDULE, GlobalOrder, order_of
from training.prepared import objects_by_concept
from training.recipes import Recipe
from training.shard_index import ShardIndex, index_split
from training.shard_order import BLOCK_ROWS, OPEN_SHARDS, ShardOrder
from training.store import Prefetch, ShardStore, digest_of_shards

_COLUMNS = ["sample_id", "dataset", "modality", "split", "height", "width", "image", "objects", "absent", "slice_index"]
_FOOTERS = 256  # kept of shards, so that a block is one read


@dataclass
class ReadCount:
    """What a process read: blocks, encoded bytes and samples given out."""

    blocks: int = 0
    bytes: int = 0
    samples: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)


class ShardSample:
    """One row of a shard; image and masks are decoded when asked for, at the sizes of the recipe."""

    def __init__(
        self,
        row: dict[str, Any],
        payload: bytes,
        recipe: Recipe,
        beside: tuple[bytes | None, bytes | None] | None = None,
    ) -> None:
        """`beside` are the pictures below and above of a slice that is to carry them; None is the slice itself."""
        self.sample_id: str = row["sample_id"]
        self.dataset: str = row["dataset"]
        self.modality: str = row["modality"]
        self._objects = objects_by_concept(row)
        self.concepts: list[str] = sorted(self._objects)
        self.absent: list[str] = sorted(row["absent"])
        self._height, self._width, self._payload = row["height"], row["width"], payload
        self._image_size, self._mask_size, self._most = recipe.image_size, recipe.mask_size, recipe.max_instances
        self._preprocessing, self._beside = recipe.preprocessing, beside

    @property
    def payload_bytes(self) -> int:
        """Size of the encoded picture."""
        return len(self._payload)

    def image(self) -> Pixels:
        """(image size, image size, channels) uint8."""
        middle = self._decoded(self._payload)
        if self._beside is None or middle.shape[-1] != 1:
            return middle
        below, above = (middle if each is None else self._decoded(each) for each in self._beside)
        return stacked(below, middle, above)

    def _decoded(self, payload: bytes) -> Pixels:
        return decode_image(payload, self._image_size, self._preprocessing)

    def concept(self, concept: str) -> tuple[Pixels, Pixels]:
        """Coverage of the union (size, size) and of each instance (instances, mask size, mask size), 0..255."""
        items = self._objects[concept]
        union = union_of([item["rle"] for item in items], self._height, self._width)
        parts = [
            instance_coverage(rle.decode(item["rle"], self._height, self._width), self._mask_size)
            for item in items[: self._most]
        ]
        return coverage(union, self._image_size), np.stack(parts)


class ShardSamples:
    """The samples of a split of several datasets, by global position, read from their shards.

    Args:
        store: where the dataset versions are.
        datasets: their names.
        split: whose rows are read.
        buffer_bytes: encoded samples held at a time by a process, at most (but always one block).
        with_objects: leave out samples without any object, where nothing absent is asked for.
        neighbours: slices from a slice to those that it carries as channels; 0: none.
    """

    def __init__(
        self,
        store: ShardStore,
        datasets: list[str],
        split: str,
        *,
        buffer_bytes: int,
        with_objects: bool = False,
        neighbours: int = 0,
    ) -> None:
        indexed = [
            index_split(store, name, split, with_objects=with_objects, neighbours=neighbours) for name in datasets
        ]
        self.indexes: list[ShardIndex] = [index for index in indexed if index.block_samples.size]
        self.datasets = [index.dataset for index in self.indexes]
        self.sizes = [int(index.block_samples.sum()) for index in self.indexes]
        self.digest = digest_of_shards(shard for index in self.indexes for shard in index.shards)
        self._store, self._buffer_bytes = store, buffer_bytes
        self._order: GlobalOrder | None = None
        self._orders: list[ShardOrder] = []
        self._recipe: Recipe | None = None
        self._reader: _Reader | None = None

    def __len__(self) -> int:
        return sum(self.sizes)

    def follow(self, recipe: Recipe) -> dict[str, Any]:
        """Take the recipe's order; return what decides it."""
        order = order_of(self.sizes, recipe)
        self._orders = [
            ShardOrder(
                index.block_shard,
                index.block_samples,
                # each dataset's window lasts for about `shuffle_samples` positions
                window=max(BLOCK_ROWS, recipe.shuffle_samples * quota // SCHEDULE),
                seed=recipe.seed,
                dataset=number,
            )
            for number, (index, quota) in enumerate(zip(self.indexes, order.quota, strict=True))
        ]
        self._order, self._recipe = order, recipe
        shape = [BLOCK_ROWS, OPEN_SHARDS, recipe.shuffle_samples, order.quota]
        return {"stream": "shards", "seed": recipe.seed, "quota": digest_of(shape)[:16]}

    def where(self, position: int) -> tuple[int, int, int]:
        """(dataset, block, number of the sample in it) of a global position: arithmetic alone, nothing is read."""
        assert self._order is not None
        dataset, draw = self._order.draw(position)
        return dataset, *self._orders[dataset].place(draw)

    def sample_id(self, position: int) -> str:
        """Who comes at a global position."""
        dataset, block, number = self.where(position)
        found: str = self._read.block(dataset, block).column("sample_id")[number].as_py()
        return found

    def at(self, position: int) -> ShardSample:
        """The sample at a global position; `follow` comes first."""
        assert self._order is not None
        assert self._recipe is not None
        recipe = self._recipe
        dataset, draw = self._order.draw(position)
        block, number = self._orders[dataset].place(draw)
        if self._store.is_remote:
            self._read.ahead(dataset, draw, self._orders[dataset])
        table = self._read.block(dataset, block)
        with self._read.count.lock:
            self._read.count.samples += 1
        row = table.slice(number, 1)
        payload: bytes = row.column("image")[0].as_py()
        [values] = row.drop_columns(["image"]).to_pylist()
        beside = self._payloads_beside(dataset, block, number) if values["slice_index"] is not None else None
        return ShardSample(values, payload, recipe, beside)

    def _payloads_beside(self, dataset: int, block: int, number: int) -> tuple[bytes | None, bytes | None] | None:
        index = self.indexes[dataset]
        if index.beside is None:
            return None
        own = int(index.first_row[index.block_shard[block]] + index.rows(block)[number])
        below, above = (None if row == own else self._read.payload(dataset, row) for row in index.beside[own].tolist())
        return below, above

    @property
    def count(self) -> ReadCount:
        """What this process has read so far."""
        return self._read.count

    @property
    def _read(self) -> _Reader:
        # a loader process is a copy of this one: locks, threads and buffers are its own
        if self._reader is None or self._reader.owner != os.getpid():
            self._reader = _Reader(self._store, self.indexes, self._buffer_bytes)
        return self._reader

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_reader": None}


class _Reader:
    """Blocks as tables, each read once by one thread while the others wait; the oldest make way."""

    def __init__(self, store: ShardStore, indexes: list[ShardIndex], limit_bytes: int) -> None:
        self.owner = os.getpid()
        self.count = ReadCount()
        self._store, self._indexes, self._limit = store, indexes, limit_bytes
        self._lock = threading.Lock()
        self._blocks: OrderedDict[tuple[int, int], Future[pa.Table]] = OrderedDict()
        self._held = 0
        self._footers: OrderedDict[tuple[int, int], pq.FileMetaData] = OrderedDict()
        self._prefetch = Prefetch(store)
        self._windows: dict[int, int] = {}

    def block(self, dataset: int, block: int) -> pa.Table:
        """The samples of a block, in the order of their rows."""
        return self._once((dataset, block), lambda: self._load(self._indexes[dataset], dataset, block))

    def payload(self, dataset: int, row: int) -> bytes:
        """The picture of a row, a sample or not, counted over all shards."""
        index = self._indexes[dataset]
        sample = index.sample(row)
        if sample is not None:
            table, number = self.block(dataset, sample[0]), sample[1]
        else:
            shard, at = index.place(row)
            first = at - at % BLOCK_ROWS
            rows = np.arange(first, min(first + BLOCK_ROWS, index.rows_in(shard)))
            # blocks of rows that are no samples count below 0
            key = (dataset, -1 - int(index.first_row[shard]) - first)
            table = self._once(key, lambda: self._rows(index, dataset, shard, rows, ["image"]))
            number = at - first
        found: bytes = table.column("image")[number].as_py()
        return found

    def _once(self, key: tuple[int, int], load: Callable[[], pa.Table]) -> pa.Table:
        with self._lock:
            found = self._blocks.get(key)
            if found is not None:
                self._blocks.move_to_end(key)
            else:
                mine: Future[pa.Table] = Future()
                self._blocks[key] = mine
        if found is not None:
            return found.result()
        try:
            table = load()
        except BaseException as broken:
            with self._lock:
                del self._blocks[key]
            mine.set_exception(broken)
            raise
        mine.set_result(table)
        self._note(table)
        return table

    def ahead(self, dataset: int, draw: int, order: ShardOrder) -> None:
        """Have the shards that come next brought, asked once for every block's worth of draws."""
        if self._windows.get(dataset) == draw // BLOCK_ROWS:
            return
        self._windows[dataset] = draw // BLOCK_ROWS
        index = self._indexes[dataset]
        self._prefetch.ask(index.dataset, [index.shards[number] for number in order.shards_from(draw)])

    def _note(self, table: pa.Table) -> None:
        with self._lock:
            self.count.blocks += 1
            self.count.bytes += table.nbytes
            self._held += table.nbytes
            for key, other in list(self._blocks.items()):
                if self._held <= self._limit or len(self._blocks) == 1:
                    break
                if other.done() and other.exception() is None and other.result() is not table:
                    self._held -= other.result().nbytes
                    del self._blocks[key]

    def _load(self, index: ShardIndex, dataset: int, block: int) -> pa.Table:
        number = int(index.block_shard[block])
        shard = index.shards[number]
        rows = index.rows(block)
        table = self._rows(index, dataset, number, rows, _COLUMNS)
        splits = pc.unique(table.column("split")).to_pylist()
        if splits != [index.split]:
            msg = (
                f"{shard.dataset}: {shard.path.name}: expected rows {int(rows[0])} to {int(rows[-1])} that the "
                f"manifest counts to split {index.split!r}, found {splits}. They are of different versions: "
                f"run `dvc checkout --force`, or ingest {shard.dataset} again"
            )
            raise DataError(msg)
        return table

    def _rows(self, index: ShardIndex, dataset: int, number: int, rows: Any, columns: list[str]) -> pa.Table:
        shard = index.shards[number]
        with self._lock:
            footer = self._footers.get((dataset, number))
        with self._store.open(shard, footer) as file:
            if footer is None:
                with self._lock:
                    self._footers[dataset, number] = file.metadata
                    while len(self._footers) > _FOOTERS:
                        self._footers.popitem(last=False)
            return _take(file, rows, columns)


def _take(file: pq.ParquetFile, rows: Any, columns: list[str]) -> pa.Table:
    """Rows of a file, ascending, of the row groups that hold them; written by others, these may be of any size."""
    sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    ends = np.cumsum(sizes)
    groups = np.unique(np.searchsorted(ends, rows, side="right"))
    begins = (ends - sizes)[groups]
    table = file.read_row_groups(groups.tolist(), columns=columns, use_threads=False)
    held = np.concatenate([np.arange(begin, ends[group]) for begin, group in zip(begins, groups, strict=True)])
    # `take` copies: what is not of the split does not stay in memory
    return table.take(np.searchsorted(held, rows)).combine_chunks()
