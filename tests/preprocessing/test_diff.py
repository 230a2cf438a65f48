"""Two manifests side by side: every sample is told for what it is, wherever it lies in the files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.errors import DataError
from preprocessing import schema, sorted_rows
from preprocessing.diff import LISTS, diff, diff_manifests
from preprocessing.sorted_rows import windows
from tests.preprocessing.made_version import row, version


def _mask(at: int) -> np.ndarray[Any, Any]:
    mask = np.zeros((20, 24), dtype=bool)
    mask[at : at + 4, at : at + 5] = True
    return mask


def _pixels(seed: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, (20, 24), dtype=np.uint8)


def _source(image: str, label: str) -> list[dict[str, str]]:
    return [{"file": "images/a.png", "sha256": image * 64}, {"file": "masks/a.png", "sha256": label * 64}]


BEFORE = {
    "gone": row("gone", _pixels(1), {"organ": [_mask(1)]}),
    "same": row("same", _pixels(2), {"organ": [_mask(1)]}),
    "pixels": row("pixels", _pixels(3), {"organ": [_mask(1)]}),
    "labels": row("labels", _pixels(4), {"organ": [_mask(1)]}, source=_source("a", "b")),
    "searched": row("searched", _pixels(5), {"organ": [_mask(1)]}),
    "both": row("both", _pixels(6), {"organ": [_mask(1)]}, source=_source("a", "b")),
    "size": row("size", _pixels(7), {"organ": [_mask(1)]}),
    "moved": row("moved", _pixels(8), {"organ": [_mask(1)]}),
    "regrouped": row("regrouped", _pixels(9), {"organ": [_mask(1)]}),
    "remade": row("remade", _pixels(10), {"organ": [_mask(1)]}),
    "twin": row("twin", _pixels(2), {"organ": [_mask(1)]}),  # the content of "same" once more
    "renamed": row("renamed", _pixels(12), {"organ": [_mask(1)]}),
}
AFTER = {
    "same": BEFORE["same"],
    "pixels": row("pixels", _pixels(33), {"organ": [_mask(1)]}),
    "labels": row("labels", _pixels(4), {"organ": [_mask(2)]}, source=_source("a", "c")),
    "searched": row("searched", _pixels(5), {"organ": [_mask(1)]}, absent=("tumor",)),
    "both": row("both", _pixels(66), {"organ": [_mask(2)]}, source=_source("d", "c")),
    "size": row("size", _pixels(7)[:18], {"organ": [_mask(2)[:18]]}),
    "moved": {**BEFORE["moved"], "split": "test"},
    "regrouped": {**BEFORE["regrouped"], "group_id": "g-other"},
    "remade": {**BEFORE["remade"], "recipe_sha256": "f" * 64},
    "twin": row("twin", _pixels(11), {"organ": [_mask(1)]}),
    "renamed": row("renamed", _pixels(12), {"organism": [_mask(1)]}, source=_source("a", "b"), recipe_sha256="e" * 64),
    "new": row("new", _pixels(2), {"organ": [_mask(1)]}),  # reuses content: a diff by hash would miss it
}
EXPECTED = {
    "added": ["made/new"],
    "removed": ["made/gone"],
    "changed_labels": ["made/both", "made/labels", "made/renamed", "made/searched", "made/size"],
    "changed_pixels": ["made/both", "made/pixels", "made/size", "made/twin"],
    "pixels_not_told": [],
    "moved": [{"sample_id": "made/moved", "from": "train", "to": "test"}],
    "regrouped": [{"sample_id": "made/regrouped", "from": "g-regrouped", "to": "g-other"}],
}
# What can be said where one of the two was written before manifests had digests.
DIGESTS = ["pixels_digest", "labels_digest"]
WITHOUT_DIGESTS = {
    **EXPECTED,
    "changed_pixels": ["made/pixels", "made/size", "made/twin"],
    "pixels_not_told": ["made/both", "made/renamed"],
}


def _manifest(folder: Path, rows: dict[str, dict[str, Any]]) -> Path:
    return version(folder, list(rows.values())) / schema.MANIFEST_FILE


def test_each_change_is_told_for_what_it_is(tmp_path: Path) -> None:
    old, new = _manifest(tmp_path / "a", BEFORE), _manifest(tmp_path / "b", AFTER)
    found = diff_manifests(old, new)
    assert {name: found[name] for name in LISTS} == EXPECTED
    assert found["counts"] == {**{name: len(EXPECTED[name]) for name in LISTS}, "other_recipe": 2, "same": 2}
    assert found["truncated"] == []
    assert diff(pq.read_table(old), pq.read_table(new)) == found
    backward = diff_manifests(new, old)
    assert (backward["added"], backward["removed"]) == (EXPECTED["removed"], EXPECTED["added"])
    assert diff_manifests(old, old)["counts"] == {**dict.fromkeys(LISTS, 0), "other_recipe": 0, "same": len(BEFORE)}


def _older(path: Path, how: str) -> None:
    """Write a manifest as an older build did, or as one comes out of the reader that fills in what is missing."""
    pq.write_table(pq.read_table(path).drop_columns(DIGESTS), path, row_group_size=4)
    if how == "null":
        pq.write_table(schema.read_manifest(path.parent), path)


@pytest.mark.parametrize("how", ["missing", "null"])
@pytest.mark.parametrize("older", [("a",), ("b",), ("a", "b")])
def test_a_manifest_without_digests_is_compared_by_content_and_masks(
    tmp_path: Path, older: tuple[str, ...], how: str
) -> None:
    old, new = _manifest(tmp_path / "a", BEFORE), _manifest(tmp_path / "b", AFTER)
    for name in older:
        _older(tmp_path / name / schema.MANIFEST_FILE, how)
    found = diff_manifests(old, new)
    assert {name: found[name] for name in LISTS} == WITHOUT_DIGESTS
    assert found["counts"]["same"] == 2
    assert diff(pq.read_table(old), pq.read_table(new)) == found


def test_digests_say_what_the_row_says_and_are_no_part_of_what_a_manifest_says(tmp_path: Path) -> None:
    path = _manifest(tmp_path / "a", BEFORE)
    first, again = BEFORE["same"], row("other", _pixels(2), {"organ": [_mask(1)]})
    assert all(first[name] == again[name] and len(first[name]) == schema.DIGEST_BYTES for name in DIGESTS)
    assert first["pixels_digest"].hex() == first["look"]["pixels_sha256"][: 2 * schema.DIGEST_BYTES]
    for name, other in (
        ("pixels", row("x", _pixels(99), {"organ": [_mask(1)]})),
        ("labels", row("x", _pixels(2), {"organ": [_mask(2)]})),
        ("labels", row("x", _pixels(2), {"other": [_mask(1)]})),
        ("labels", row("x", _pixels(2), {"organ": [_mask(1), _mask(9)]})),
        ("labels", row("x", _pixels(2), {"organ": [_mask(1)]}, absent=("tumor",))),
    ):
        differ = [digest for digest in DIGESTS if other[digest] != first[digest]]
        assert differ == [f"{name}_digest"]
    digest = schema.manifest_digest(pq.read_table(path))
    _older(path, "missing")
    assert schema.manifest_digest(pq.read_table(path)) == digest


SAID = st.tuples(*[st.integers(0, 1)] * 5)  # split, group, recipe, pixels, labels
SIDE = st.dictionaries(st.text("ab01/", min_size=1, max_size=4), SAID, max_size=40)


def _table(side: dict[str, tuple[int, ...]]) -> pa.Table:
    names = ["split", "group_id", "recipe_sha256", "pixels_digest", "labels_digest"]
    columns = {"sample_id": pa.array(sorted(side), pa.string())}
    for at, name in enumerate(names):
        values = [side[key][at] for key in sorted(side)]
        columns[name] = pa.array(
            [bytes([value] * 16) for value in values] if name.endswith("digest") else [f"{value}" for value in values],
            pa.binary(16) if name.endswith("digest") else pa.string(),
        )
    return pa.table(columns)


@given(old=SIDE, new=SIDE, sizes=st.tuples(st.integers(1, 9), st.integers(1, 9)))
@settings(max_examples=60, deadline=None)
def test_the_diff_is_what_two_dictionaries_say(
    old: dict[str, Any], new: dict[str, Any], sizes: tuple[int, int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("diff")
    for name, side, size in (("old", old, sizes[0]), ("new", new, sizes[1])):
        pq.write_table(_table(side), folder / name, row_group_size=size)
    found = diff_manifests(folder / "old", folder / "new")
    both = sorted(set(old) & set(new))
    assert found["added"] == sorted(set(new) - set(old))
    assert found["removed"] == sorted(set(old) - set(new))
    for name, at in (("moved", 0), ("regrouped", 1)):
        assert found[name] == [
            {"sample_id": key, "from": str(old[key][at]), "to": str(new[key][at])}
            for key in both
            if old[key][at] != new[key][at]
        ]
    for name, at in (("changed_pixels", 3), ("changed_labels", 4)):
        assert found[name] == [key for key in both if old[key][at] != new[key][at]]
    assert found["counts"]["other_recipe"] == sum(old[key][2] != new[key][2] for key in both)
    decides = [(side[key][:2], side[key][3:]) for key in both for side in (old, new)]
    assert found["counts"]["same"] == sum(a == b for a, b in zip(decides[::2], decides[1::2], strict=True))
    assert found["truncated"] == []


def test_counts_are_whole_where_lists_end(tmp_path: Path) -> None:
    found = diff_manifests(_manifest(tmp_path / "a", BEFORE), _manifest(tmp_path / "b", AFTER), limit=1)
    assert found["counts"]["changed_labels"] == 5
    assert found["changed_labels"] == ["made/both"]
    assert found["changed_pixels"] == ["made/both"]
    assert found["truncated"] == ["changed_labels", "changed_pixels"]


def test_small_row_groups_change_nothing(tmp_path: Path) -> None:
    old, new = _manifest(tmp_path / "a", BEFORE), _manifest(tmp_path / "b", AFTER)
    whole = diff_manifests(old, new)
    for path, size in ((old, 3), (new, 2)):
        pq.write_table(pq.read_table(path), path, row_group_size=size)
    assert diff_manifests(old, new) == whole


def test_a_manifest_out_of_order_is_refused_not_misread(tmp_path: Path) -> None:
    old = _manifest(tmp_path / "a", BEFORE)
    table = pq.read_table(old)
    for name, spoiled in (
        ("mixed", table.take(list(range(table.num_rows))[::-1])),
        ("twice", pa.concat_tables([table, table])),
    ):
        pq.write_table(spoiled, tmp_path / f"{name}.parquet", row_group_size=5)
        with pytest.raises(DataError, match=f"{name}.parquet: expected rows sorted by sample_id"):
            diff_manifests(old, tmp_path / f"{name}.parquet")


KEYS = st.sets(st.text("ab01/", min_size=1, max_size=6), max_size=60)


@given(left=KEYS, right=KEYS, sizes=st.tuples(st.integers(1, 9), st.integers(1, 9)), few=st.sampled_from([0, 2000]))
@settings(max_examples=60, deadline=None)
def test_windows_are_a_full_join(
    left: set[str], right: set[str], sizes: tuple[int, int], few: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("join")
    sides: list[Any] = []
    for name, keys, size in (("l", left, sizes[0]), ("r", right, sizes[1])):
        table = pa.table({"key": pa.array(sorted(keys), pa.string())})
        pq.write_table(table, folder / name, row_group_size=size)
        sides.append(folder / name)
    before = sorted_rows._FEW
    sorted_rows._FEW = few  # 0: by hash table from the first step out of step
    try:
        found: Counter[str] = Counter()
        common: list[str] = []
        for window in windows(sides[0], sides[1], "key", ["key"]):
            one, other = window.both("key")
            assert one.equals(other)
            common += one.to_pylist()
            found.update(window.left.column("key").take(pa.array(window.only_left, pa.int64())).to_pylist())
            found.subtract(window.right.column("key").take(pa.array(window.only_right, pa.int64())).to_pylist())
    finally:
        sorted_rows._FEW = before
    assert sorted(common) == sorted(left & right)
    assert {key for key, count in found.items() if count == 1} == left - right
    assert {key for key, count in found.items() if count == -1} == right - left
