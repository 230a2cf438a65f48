"""What changed between two versions of a dataset, sample by sample, from their manifests alone.

Samples are joined on `sample_id`; joining on the content hash would miss rows that reuse content.
`content_sha256` covers pixels and objects together, so the two are told apart like this:

- other objects (concept and mask, in order) or other absent concepts: the labels changed;
- another content hash with the same objects, or another size: the pixels changed;
- another content hash with other objects: the pixels are the same where the recipe and the image's own files
  are the same; else they may have changed, and `pixels_not_told` says so. The image's files are the first of
  `source` and those that follow it in its folder with its ending.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from preprocessing.sorted_rows import Window, windows

Cells = dict[str, Any]
Reader = Callable[[pa.Table, int, tuple[str, ...]], Cells]
Readers = tuple[Reader, Reader]
LISTS = ("added", "removed", "changed_labels", "changed_pixels", "pixels_not_told", "moved", "regrouped")
# Read for every row, and only for the row groups with a changed row.
_ALWAYS = ["sample_id", "content_sha256", "split", "group_id", "absent", "recipe_sha256"]
_REPEATED = ("split", "recipe_sha256")
_MASKS = ["objects.list.element.concept", "objects.list.element.rle"]
_ORIGIN = ["height", "width", "source", "recipe_sha256"]


def diff(old: pa.Table, new: pa.Table) -> dict[str, Any]:
    """`diff_manifests` of two tables, with lists as long as they are."""
    return _compare(old.sort_by("sample_id"), new.sort_by("sample_id"), None)


def diff_manifests(old: Path, new: Path, limit: int | None = 10_000) -> dict[str, Any]:
    """Compare two `manifest.parquet`.

    Returns {"counts", "added", "removed", "changed_labels", "changed_pixels", "pixels_not_told", "moved",
    "regrouped", "truncated"}: sorted sample ids; `moved` (splits) and `regrouped` (groups) as {"sample_id",
    "from", "to"}. Each list ends after `limit` entries, and `truncated` names those that did; `counts` are
    whole, with "same" (none of these) and "other_recipe" (made by another recipe, whatever came out).
    """
    return _compare(old, new, limit)


def nothing_changed(samples: int) -> dict[str, Any]:
    """What `diff_manifests` says about two equal manifests of so many rows."""
    found = _Found(None)
    found.counts["same"] = samples
    return found.result()


class _Found:
    """Counts, and lists up to a limit."""

    def __init__(self, limit: int | None) -> None:
        self.counts: Counter[str] = Counter()
        self.lists: dict[str, list[Any]] = {name: [] for name in LISTS}
        self._limit = limit

    def add(self, name: str, entry: Any) -> None:
        self.counts[name] += 1
        if self._limit is None or len(self.lists[name]) < self._limit:
            self.lists[name].append(entry)

    def result(self) -> dict[str, Any]:
        counts = {name: self.counts[name] for name in (*LISTS, "other_recipe", "same")}
        truncated = [name for name in LISTS if len(self.lists[name]) < counts[name]]
        return {"counts": counts, **self.lists, "truncated": truncated}


def _compare(old: Path | pa.Table, new: Path | pa.Table, limit: int | None) -> dict[str, Any]:
    found = _Found(limit)
    readers = (_reader(old), _reader(new))
    for window in windows(old, new, "sample_id", _ALWAYS, _REPEATED):
        for name, side, rows in (
            ("removed", window.left, window.only_left),
            ("added", window.right, window.only_right),
        ):
            for sample in side.column("sample_id").take(pa.array(rows, pa.int64())).to_pylist():
                found.add(name, sample)
        _common(window, found, readers)
    return found.result()


def _common(window: Window, found: _Found, readers: Readers) -> None:
    total = sum(one.length for one in window.common)
    if not total:
        return
    changed: set[int] = set()
    for name, column in (("moved", "split"), ("regrouped", "group_id")):
        left, right = window.both(column)
        for index in _different(left, right):
            entry = {"sample_id": _sample(window, index), "from": left[index].as_py(), "to": right[index].as_py()}
            found.add(name, entry)
            changed.add(index)
    found.counts["other_recipe"] += len(_different(*window.both("recipe_sha256")))
    absent = set(_different(*window.both("absent")))
    content = set(_different(*window.both("content_sha256")))
    for index in sorted(absent | content):
        other_masks = False
        if index in content:
            masks = _both_cells(window, index, readers, _MASKS)
            other_masks = masks[0] != masks[1]
        sample = _sample(window, index)
        if other_masks or index in absent:
            found.add("changed_labels", sample)
        if index in content:
            if not other_masks:
                found.add("changed_pixels", sample)
            else:
                _tell_pixels(sample, *_both_cells(window, index, readers, _ORIGIN), found)
    found.counts["same"] += total - len(changed | absent | content)


def _tell_pixels(sample: str, left: dict[str, Any], right: dict[str, Any], found: _Found) -> None:
    """Labels and content changed: did the pixels too?"""
    if (left["height"], left["width"]) != (right["height"], right["width"]):
        found.add("changed_pixels", sample)
    elif left["recipe_sha256"] != right["recipe_sha256"] or _image_files(left) != _image_files(right):
        found.add("pixels_not_told", sample)


def _image_files(row: dict[str, Any]) -> list[str]:
    """SHA-256 of the files that hold the image: the first, and those after it that are named alike."""
    first = PurePosixPath(row["source"][0]["file"])
    digests = []
    for item in row["source"]:
        path = PurePosixPath(item["file"])
        if (path.parent, path.suffix) != (first.parent, first.suffix):
            break
        digests.append(str(item["sha256"]))
    return digests


def _different(left: pa.ChunkedArray, right: pa.ChunkedArray) -> list[int]:
    """Rows where two columns differ; equal columns cost one comparison of their bytes."""
    if left.equals(right):
        return []
    if pa.types.is_dictionary(left.type):
        left, right = left.cast(pa.string()), right.cast(pa.string())
    if pa.types.is_list(left.type):
        pairs = zip(left.to_pylist(), right.to_pylist(), strict=True)
        return [index for index, (one, other) in enumerate(pairs) if one != other]
    rows: list[int] = pc.indices_nonzero(pc.not_equal(left, right)).to_pylist()
    return rows


def _sample(window: Window, index: int) -> str:
    return str(window.left.column("sample_id")[window.place(index)[0]].as_py())


def _both_cells(window: Window, index: int, readers: Readers, columns: list[str]) -> tuple[Cells, Cells]:
    """More columns of a common row, of each side."""
    left, right = window.place(index)
    return readers[0](window.left, left, tuple(columns)), readers[1](window.right, right, tuple(columns))


def _reader(side: Path | pa.Table) -> Reader:
    """A function that reads more columns of one row: of a file, the row's group is read once."""
    if isinstance(side, Path):
        file = pq.ParquetFile(side)  # closed with the function that reads from it

        @lru_cache(maxsize=4)
        def group_of(group: int, columns: tuple[str, ...]) -> pa.Table:
            return file.read_row_group(group, columns=list(columns))

        def from_file(window: pa.Table, place: int, columns: tuple[str, ...]) -> dict[str, Any]:
            group, row = window.column("_group")[place].as_py(), window.column("_row")[place].as_py()
            cells: dict[str, Any] = group_of(group, columns).slice(row, 1).to_pylist()[0]
            return cells

        return from_file

    def from_table(window: pa.Table, place: int, columns: tuple[str, ...]) -> dict[str, Any]:
        names = list(dict.fromkeys(name.split(".")[0] for name in columns))
        cells: dict[str, Any] = window.select(names).slice(place, 1).to_pylist()[0]
        return cells

    return from_table
