"""Which pictures of two parts of the data show the same: equal pixels, near twins, and whole volumes.

Slices of one volume are like their neighbours, and slices of two people can be alike by chance, so two
volumes are twins by the code of the whole, or by several slices, and not by one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from preprocessing import near
from preprocessing.harmonize import look
from preprocessing.harmonize.look import Grey
from preprocessing.hashes import main_slices
from preprocessing.near import Index, Twin

Load = Callable[[Iterable[str]], Iterator[tuple[str, NDArray[np.uint8]]]]

_SAID = re.compile(r"the (?:pixels|picture|volume) of (?P<key>.+?), which is in (?:train|val|test)\b")
_MIN_SLICES = 2
_MIN_SHARE = 0.1  # of the slices of the smaller volume


@dataclass(frozen=True)
class Part:
    """Pictures and volumes of one side: rows of `HASHES_SCHEMA` with `group_id` and `place`, and how to read pixels.

    `place` says where a row is, e.g. (dataset, split); what it is made of is the caller's.
    """

    rows: list[dict[str, Any]]
    load: Load


@dataclass(frozen=True)
class Match:
    """`left` and `right` are rows of two parts. `kind`: "pixels", "near" or "volume"."""

    kind: str
    left: dict[str, Any]
    right: dict[str, Any]
    correlation: float


def part_of(hashes: pa.Table, where: dict[str, dict[str, Any]], load: Load) -> Part:
    """A part from a version's hashes; `where` gives what else is known of a case, e.g. group and split."""
    return Part([{**row, **where[row["case_id"]]} for row in hashes.to_pylist() if row["case_id"] in where], load)


def matches(left: Part, right: Part) -> list[Match]:
    """Everything that `left` and `right` share, but for rows of one group, which has one split by itself."""
    return [*_equal(left, right), *_near(left, right), *_volumes(left, right)]


def _equal(left: Part, right: Part) -> list[Match]:
    """Rows with equal pixels, whatever their labels; pictures that show nothing are not asked."""
    known: dict[str, list[dict[str, Any]]] = {}
    for row in left.rows:
        if row["pixels_sha256"] and row["code"]:
            known.setdefault(row["pixels_sha256"], []).append(row)
    return [
        Match("pixels", one, row, 1.0)
        for row in right.rows
        if row["code"]
        for one in known.get(row["pixels_sha256"] or "", ())
        if one["group_id"] != row["group_id"]
    ]


def _near(left: Part, right: Part) -> list[Match]:
    first, second = (_coded(part, ("picture", "slice")) for part in (left, right))
    pairs = _candidates(first, second, "picture")
    pairs = pairs[_enough(pairs[:, 0], pairs[:, 1], first, second)]  # before anything is decoded
    squares = [
        _squares(part, rows, pairs[:, column]) for column, (part, rows) in enumerate(((left, first), (right, second)))
    ]
    twins = near.confirmed(pairs, squares[0], squares[1], "picture")
    numbers = np.array([(twin.left, twin.right) for twin in twins], dtype=np.int64).reshape(-1, 2)
    kept = _enough(numbers[:, 0], numbers[:, 1], first, second)
    found = [_match("near", first, second, twin) for twin, keep in zip(twins, kept, strict=True) if keep]
    return [one for one in found if one.left["pixels_sha256"] != one.right["pixels_sha256"]]


def _enough(left: Index, right: Index, first: list[dict[str, Any]], second: list[dict[str, Any]]) -> NDArray[np.bool_]:
    """Which pairs (left, right) of rows to keep: of two volumes, several slices of both must be alike."""
    sizes = [Counter(volume_key(row) for row in rows if row["kind"] == "slice") for rows in (first, second)]
    alike: dict[tuple[str, str], tuple[set[int], set[int]]] = {}
    volumes: list[tuple[str, str] | None] = []
    for one, other in zip(left.tolist(), right.tolist(), strict=True):
        both = first[one]["kind"] == second[other]["kind"] == "slice"
        volumes.append((volume_key(first[one]), volume_key(second[other])) if both else None)
        if volumes[-1] is not None:
            seen = alike.setdefault(volumes[-1], (set(), set()))
            seen[0].add(one)
            seen[1].add(other)
    good = {
        pair: min(len(seen[0]), len(seen[1]))
        >= max(_MIN_SLICES, _MIN_SHARE * min(sizes[0][pair[0]], sizes[1][pair[1]]))
        for pair, seen in alike.items()
    }
    return np.array([pair is None or good[pair] for pair in volumes], dtype=bool)


def _volumes(left: Part, right: Part) -> list[Match]:
    first, second = (_coded(part, ("volume",)) for part in (left, right))
    pairs = _candidates(first, second, "volume")
    cubes = [
        _cubes(part, rows, pairs[:, column]) for column, (part, rows) in enumerate(((left, first), (right, second)))
    ]
    return [_match("volume", first, second, twin) for twin in near.confirmed(pairs, cubes[0], cubes[1], "volume")]


def _coded(part: Part, kinds: tuple[str, ...]) -> list[dict[str, Any]]:
    return [row for row in part.rows if row["kind"] in kinds and row["code"]]


def _candidates(first: list[dict[str, Any]], second: list[dict[str, Any]], kind: str) -> Index:
    numbers = {group: number for number, group in enumerate({row["group_id"] for row in (*first, *second)})}
    groups = [np.array([numbers[row["group_id"]] for row in rows], dtype=np.int64) for rows in (first, second)]
    codes = [look.code_words([row["code"] for row in rows]) for rows in (first, second)]
    return near.candidates(codes[0], codes[1], (groups[0], groups[1]), kind)


def _squares(part: Part, rows: list[dict[str, Any]], numbers: Index) -> list[Grey | None]:
    wanted = {rows[number]["key"]: number for number in np.unique(numbers).tolist()}
    found: list[Grey | None] = [None] * len(rows)
    for key, pixels in part.load(wanted) if wanted else ():
        found[wanted[key]] = near.comparable(pixels)
    return found


def _cubes(part: Part, rows: list[dict[str, Any]], numbers: Index) -> list[Grey | None]:
    wanted = {rows[number]["key"]: number for number in np.unique(numbers).tolist()}
    slices = {row["key"]: volume_key(row) for row in part.rows if row["kind"] == "slice"}
    slices = {key: volume for key, volume in slices.items() if volume in wanted}
    greys: dict[str, dict[str, Grey]] = {}
    for key, pixels in part.load(slices) if slices else ():
        greys.setdefault(slices[key], {})[key] = look.grey_square(pixels, look.THUMB_PX)
    found: list[Grey | None] = [None] * len(rows)
    for volume, by_slice in greys.items():
        found[wanted[volume]] = near.comparable_volume([by_slice[key] for key in main_slices(by_slice)])
    return found


def volume_key(row: dict[str, Any]) -> str:
    """The key of the volume that a slice is of."""
    return f"{row['key'].partition('/')[0]}/{row['case_id']}"


def _match(kind: str, first: list[dict[str, Any]], second: list[dict[str, Any]], twin: Twin) -> Match:
    return Match(kind, first[twin.left], second[twin.right], twin.correlation)


def set_aside(part: Part) -> dict[str, Match]:
    """Case -> why it must leave a dataset so that no picture lies in two splits, for all cases of a group at once.

    Test keeps what it has, then validation: of two twins the one in the lower split leaves. Nothing moves from
    one split to another, so that a test set stays what it was when data is added. `part.rows` have "split".
    """
    gone: dict[str, Match] = {}
    for lower, higher in (("val", ("test",)), ("train", ("val", "test"))):
        left = Part([row for row in part.rows if row["split"] == lower], part.load)
        right = Part([row for row in part.rows if row["split"] in higher and row["case_id"] not in gone], part.load)
        groups: dict[str, Match] = {}
        for match in matches(left, right):
            groups.setdefault(match.left["group_id"], match)
        gone.update({row["case_id"]: groups[row["group_id"]] for row in left.rows if row["group_id"] in groups})
    return gone


def said(match: Match) -> str:
    """A match in words: what was found."""
    like = {"pixels": "the pixels", "near": "the picture", "volume": "the volume"}[match.kind]
    sure = "" if match.kind == "pixels" else f" (correlation {match.correlation:.2f})"
    own = "" if match.left["kind"] == "picture" else f" in {match.left['key']}"
    return f"{like} of {match.right['key']}, which is in {match.right['split']}{sure}{own}"


def named_in(found: str) -> str:
    """The key that `said` named: the sample or volume which the case in quarantine is a twin of; else empty."""
    match = _SAID.match(found)
    return match["key"] if match else ""
