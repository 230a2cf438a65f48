"""What changed between two versions of a dataset, sample by sample, from their manifests alone.

Samples are joined on `sample_id`; joining on a content hash would miss rows that reuse content. Another
`pixels_digest` says that the pixels changed, another `labels_digest` that objects or absent concepts did.

Where a manifest was written before there were digests, `content_sha256` covers pixels and objects together, and
the two are told apart like this:

- other objects (concept and mask, in order) or other absent concepts: the labels changed;
- another content hash with the same objects, or another size: the pixels changed;
- another content hash with other objects: the pixels are the same where the recipe and the image's own files
  are the same; else they may have changed, and `pixels_not_told` says so. The image's files are the first of
  `source` and those that follow it in its folder with its ending.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from preprocessing.sorted_rows import Window, windows

Cells = dict[str, Any]
Rows = NDArray[np.int64]  # numbers of common rows of a window, rising
LISTS = ("added", "removed", "changed_labels", "changed_pixels", "pixels_not_told", "moved", "regrouped")
_ALWAYS = ["sample_id", "split", "group_id", "recipe_sha256"]
_DIGESTS = ["pixels_digest", "labels_digest"]
_REPEATED = ("split", "recipe_sha256")  # not groups: of pictures each has its own, and reading them so is slower
# What is read in place of digests where one side has none.
_ABSENT = "absent"
_MASKS = ["objects.list.element.concept", "objects.list.element.rle"]
_ORIGIN = ["height", "width", "source"]
_WITHOUT_DIGESTS = ["content_sha256", _ABSENT, *_MASKS, *_ORIGIN]


def diff(old: pa.Table, new: pa.Table) -> dict[str, Any]:
    """`diff_manifests` of two tables, with lists as long as they are."""
    return _compare(old.sort_by("sample_id"), new.sort_by("sample_id"), None)


def diff_manifests(old: Path, new: Path, limit: int | None = 10_000) -> dict[str, Any]:
    """Compare two `manifest.parquet`.

    Returns {"counts", "added", "removed", "changed_labels", "changed_pixels", "pixels_not_told", "moved",
    "regrouped", "truncated"}: sorted sample ids; `moved` (splits) and `regrouped` (groups) as {"sample_id",
    "from", "to"}. Each list ends after `limit` entries, and `truncated` names those that did; `counts` are
    whole, with "same" (none of these) and "other_recipe" (made by another recipe, whatever came out).
    DataError where a manifest is not sorted by `sample_id` or names one twice.
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

    def add(self, name: str, entries: list[Any]) -> None:
        self.counts[name] += len(entries)
        self.lists[name] += entries if self._limit is None else entries[: self._limit - len(self.lists[name])]

    def result(self) -> dict[str, Any]:
        counts = {name: self.counts[name] for name in (*LISTS, "other_recipe", "same")}
        truncated = [name for name in LISTS if len(self.lists[name]) < counts[name]]
        return {"counts": counts, **self.lists, "truncated": truncated}


def _compare(old: Path | pa.Table, new: Path | pa.Table, limit: int | None) -> dict[str, Any]:
    found = _Found(limit)
    by_digest = _has_digests(old) and _has_digests(new)
    columns = [*_ALWAYS, *(_DIGESTS if by_digest else _WITHOUT_DIGESTS)]
    for window in windows(old, new, "sample_id", columns, _REPEATED):
        found.add("removed", window.left.column("sample_id").take(pa.array(window.only_left, pa.int64())).to_pylist())
        found.add("added", window.right.column("sample_id").take(pa.array(window.only_right, pa.int64())).to_pylist())
        if window.common:
            _common(window, found, by_digest=by_digest)
    return found.result()


def _has_digests(side: Path | pa.Table) -> bool:
    """Whether every row has them: a null compares to nothing, and its change would be missed."""
    if not isinstance(side, Path):
        return all(name in side.column_names and not side.column(name).null_count for name in _DIGESTS)
    metadata = pq.read_metadata(side)
    places = {metadata.schema.column(at).path: at for at in range(metadata.num_columns)}
    if not all(name in places for name in _DIGESTS):
        return False
    for group in range(metadata.num_row_groups):
        for name in _DIGESTS:
            known = metadata.row_group(group).column(places[name]).statistics
            if known is None or not known.has_null_count or known.null_count:
                return False
    return True


def _common(window: Window, found: _Found, *, by_digest: bool) -> None:
    samples = window.both("sample_id")[0]
    parts = []
    for name, column in (("moved", "split"), ("regrouped", "group_id")):
        left, right = window.both(column)
        rows = _different(left, right)
        places = [side.take(pa.array(rows)).to_pylist() for side in (samples, left, right)]
        keys = ("sample_id", "from", "to")
        found.add(name, [dict(zip(keys, entry, strict=True)) for entry in zip(*places, strict=True)])
        parts.append(rows)
    labels, pixels, not_told = _by_digest(window) if by_digest else _without_digests(window)
    for name, rows in (("changed_labels", labels), ("changed_pixels", pixels), ("pixels_not_told", not_told)):
        found.add(name, samples.take(pa.array(rows)).to_pylist())
    found.counts["other_recipe"] += len(_different(*window.both("recipe_sha256")))
    changed = np.unique(np.concatenate([*parts, labels, pixels]))
    found.counts["same"] += len(samples) - len(changed)


def _by_digest(window: Window) -> tuple[Rows, Rows, Rows]:
    """Rows whose labels and whose pixels changed, and none of which that cannot be told."""
    pixels, labels = (_different(*window.both(name)) for name in _DIGESTS)
    return labels, pixels, np.zeros(0, dtype=np.int64)


def _without_digests(window: Window) -> tuple[Rows, Rows, Rows]:
    """Rows whose labels changed, whose pixels did, and whose pixels may have, by content, masks and origin."""
    content = _different(*window.both("content_sha256"))
    sides = [_cells(window, content, at, ["objects", *_ORIGIN, "recipe_sha256"]) for at in (0, 1)]
    labels, pixels, not_told = set(_different(*window.both(_ABSENT)).tolist()), [], []
    for row, left, right in zip(content.tolist(), *sides, strict=True):
        other_masks = left["objects"] != right["objects"]
        if other_masks:
            labels.add(row)
        if not other_masks or (left["height"], left["width"]) != (right["height"], right["width"]):
            pixels.append(row)
        elif left["recipe_sha256"] != right["recipe_sha256"] or _image_files(left) != _image_files(right):
            not_told.append(row)
    rows = [np.array(numbers, dtype=np.int64) for numbers in (sorted(labels), pixels, not_told)]
    return rows[0], rows[1], rows[2]


def _image_files(row: Cells) -> list[str]:
    """SHA-256 of the files that hold the image: the first, and those after it that are named alike."""
    first = PurePosixPath(row["source"][0]["file"])
    digests = []
    for item in row["source"]:
        path = PurePosixPath(item["file"])
        if (path.parent, path.suffix) != (first.parent, first.suffix):
            break
        digests.append(str(item["sha256"]))
    return digests


def _cells(window: Window, rows: Rows, side: int, columns: list[str]) -> list[Cells]:
    """Some columns of some common rows of one side (0 old, 1 new)."""
    taken = {name: window.both(name)[side].take(pa.array(rows)) for name in columns}
    cells: list[Cells] = pa.table(taken).to_pylist()
    return cells


def _different(left: pa.ChunkedArray, right: pa.ChunkedArray) -> Rows:
    """Rows where two columns differ; equal columns cost one comparison of their bytes."""
    if left.equals(right):
        return np.zeros(0, dtype=np.int64)
    if pa.types.is_dictionary(left.type):
        left, right = _codes(left, right)
    if pa.types.is_list(left.type):
        pairs = zip(left.to_pylist(), right.to_pylist(), strict=True)
        return np.array([index for index, (one, other) in enumerate(pairs) if one != other], dtype=np.int64)
    rows: Rows = pc.indices_nonzero(pc.not_equal(left, right)).to_numpy().astype(np.int64)
    return rows


def _codes(left: pa.ChunkedArray, right: pa.ChunkedArray) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Two columns of few values as numbers where these mean the same in both, else as text."""
    chunks = [*left.chunks, *right.chunks]
    if all(chunk.dictionary.equals(chunks[0].dictionary) for chunk in chunks):
        codes = [pa.chunked_array([chunk.indices for chunk in side.chunks]) for side in (left, right)]
        return codes[0], codes[1]
    return left.cast(pa.string()), right.cast(pa.string())
