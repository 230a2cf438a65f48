"""Two sorted tables side by side: windows of rows with equal keys, and the rows that one side alone has.

Manifests are written in the order of `sample_id`. Walking two of them together needs memory for two row
groups, where a hash join of ten million ids needs gigabytes, and costs little more than reading them.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from infra.errors import DataError

# Rows that are compared at once: few after a step out of step, where the next may be near, then more and more.
_LEAST, _MOST = 256, 65_536
_FEW = 2000  # steps out of step in a window before a hash look-up is the faster way


@dataclass(frozen=True)
class Segment:
    """Rows whose keys are equal on both sides, one after the other."""

    left: int
    right: int
    length: int


@dataclass(frozen=True)
class Window:
    """A range of keys: the rows of both sides in it. Row numbers count within `left` and `right`."""

    left: pa.Table
    right: pa.Table
    common: list[Segment]
    only_left: list[int]
    only_right: list[int]

    def both(self, column: str) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
        """One column of the common rows, of each side, in the same order and the same chunks."""
        left, right = self.left.column(column), self.right.column(column)
        kind = left.type
        return (
            pa.chunked_array([part for one in self.common for part in _part(left, one.left, one.length)], kind),
            pa.chunked_array([part for one in self.common for part in _part(right, one.right, one.length)], kind),
        )


def windows(
    left: Path | pa.Table, right: Path | pa.Table, key: str, columns: list[str], repeated: tuple[str, ...] = ()
) -> Iterator[Window]:
    """Walk two tables sorted by `key`, each key there once; DataError where a side is not so.

    Each side is a Parquet file, of which `columns` are read a row group at a time, or a table. Columns of few
    values (`repeated`) of a file come as dictionaries, which read faster.
    """
    with ThreadPoolExecutor(2) as pool:
        sides = [_Side(_groups(one, key, columns, repeated, pool), key, _name(one)) for one in (left, right)]
        while any(side.rows.num_rows for side in sides):
            bounds = [side.last for side in sides if side.rows.num_rows]
            bound = min(bounds)
            parts = [side.take(bound) for side in sides]
            yield _window(parts[0], parts[1], key)


class _Side:
    """The rows of one table that have not been given out."""

    def __init__(self, parts: Iterator[pa.Table], key: str, name: str) -> None:
        self._key = key
        self._name = name
        self._parts = parts
        self.rows: pa.Table = next(self._parts)

    @property
    def last(self) -> str:
        return self._key_at(self.rows, -1)

    def take(self, bound: str) -> pa.Table:
        """Give out the rows up to and with `bound`; read on where none stay."""
        keys = self.rows.column(self._key)
        low, high = 0, self.rows.num_rows
        while low < high:
            middle = (low + high) // 2
            if keys[middle].as_py() <= bound:
                low = middle + 1
            else:
                high = middle
        given = self.rows.slice(0, low)
        self.rows = self.rows.slice(low)
        if given.num_rows and not self.rows.num_rows:
            self._read_on(self._key_at(given, -1))
        return given

    def _read_on(self, previous: str) -> None:
        self.rows = next(self._parts, self.rows)
        if self.rows.num_rows and self._key_at(self.rows, 0) <= previous:
            raise _out_of_order(self._name, self._key)

    def _key_at(self, rows: pa.Table, place: int) -> str:
        return str(rows.column(self._key)[place].as_py())


def _groups(
    source: Path | pa.Table, key: str, columns: list[str], repeated: tuple[str, ...], pool: ThreadPoolExecutor
) -> Iterator[pa.Table]:
    """Row groups that have rows, each in order, the next one being read meanwhile; an empty table where none has."""
    if not isinstance(source, Path):
        yield _in_order(source.combine_chunks(), key, _name(source))
        return
    with pq.ParquetFile(source, memory_map=True, read_dictionary=list(repeated)) as file:

        def read(group: int) -> pa.Table:
            return _in_order(file.read_row_group(group, columns=columns).combine_chunks(), key, _name(source))

        groups = [group for group in range(file.num_row_groups) if file.metadata.row_group(group).num_rows]
        if not groups:
            yield file.read(columns=columns)
            return
        ahead: Future[pa.Table] = pool.submit(read, groups[0])
        for following in [*groups[1:], None]:
            table = ahead.result()
            if following is not None:
                ahead = pool.submit(read, following)
            yield table


def _in_order(rows: pa.Table, key: str, name: str) -> pa.Table:
    """The same rows; DataError where a key is not above the one before."""
    keys = _one_chunk(rows.column(key))
    if len(keys) > 1 and not pc.all(pc.less(keys.slice(0, len(keys) - 1), keys.slice(1))).as_py():
        raise _out_of_order(name, key)
    return rows


def _out_of_order(name: str, key: str) -> DataError:
    return DataError(f"{name}: expected rows sorted by {key}, each once, as a build writes them, found others")


def _name(source: Path | pa.Table) -> str:
    return source.name if isinstance(source, Path) else "the table"


def _window(left: pa.Table, right: pa.Table, key: str) -> Window:
    keys = [_one_chunk(side.column(key)) for side in (left, right)]
    if keys[0].equals(keys[1]):
        whole = [Segment(0, 0, left.num_rows)] if left.num_rows else []
        return Window(left, right, whole, [], [])
    return Window(left, right, *_align(keys[0], keys[1]))


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    """A column as one array, without a copy where it is one."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _align(left: pa.Array, right: pa.Array) -> tuple[list[Segment], list[int], list[int]]:
    """Walk two sorted key columns block by block; a step out of step costs one block, so few of them cost little."""
    common: list[Segment] = []
    only_left: list[int] = []
    only_right: list[int] = []
    i = j = 0
    block = _MOST
    while i < len(left) and j < len(right):
        if len(only_left) + len(only_right) > _FEW:
            return _look_up(left, right)
        length = min(block, len(left) - i, len(right) - j)
        run = _equal_at_first(left.slice(i, length), right.slice(j, length))
        block = min(2 * block, _MOST) if run == length else _LEAST
        if run:
            if common and (common[-1].left + common[-1].length, common[-1].right + common[-1].length) == (i, j):
                common[-1] = Segment(common[-1].left, common[-1].right, common[-1].length + run)
            else:
                common.append(Segment(i, j, run))
            i, j = i + run, j + run
        elif left[i].as_py() < right[j].as_py():
            only_left.append(i)
            i += 1
        else:
            only_right.append(j)
            j += 1
    only_left += range(i, len(left))
    only_right += range(j, len(right))
    return common, only_left, only_right


def _equal_at_first(left: pa.Array, right: pa.Array) -> int:
    """How many values are equal before the first that differ."""
    if left.equals(right):
        return len(left)
    return int(pc.index(pc.equal(left, right), False).as_py())


def _look_up(left: pa.Array, right: pa.Array) -> tuple[list[Segment], list[int], list[int]]:
    """The same by a hash table, for sides that have little in common."""
    places = pc.index_in(left, value_set=right)
    known = pc.indices_nonzero(places.is_valid()).to_pylist()
    only_left = pc.indices_nonzero(places.is_null()).to_pylist()
    targets = places.drop_null().to_pylist()
    only_right = sorted(set(range(len(right))) - set(targets))
    common: list[Segment] = []
    start = 0
    pairs = list(zip(known, targets, strict=True))
    for index, ((i, j), (next_i, next_j)) in enumerate(pairwise([*pairs, (-2, -2)])):
        if (next_i, next_j) != (i + 1, j + 1):
            common.append(Segment(*pairs[start], index + 1 - start))
            start = index + 1
    return common, only_left, only_right


def _part(column: pa.ChunkedArray, start: int, length: int) -> list[pa.Array]:
    chunks: list[pa.Array] = column.slice(start, length).chunks
    return chunks
