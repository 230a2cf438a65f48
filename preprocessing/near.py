"""The same picture twice: candidates by codes, then a check on pixels.

Candidates come from tables over samples of a code's bits (bit-sampling locality-sensitive hashing: Indyk
and Motwani, STOC 1998), so that the work grows with the number of pictures and of candidates, and not with
all pairs; where all pairs are few they are simply counted. Every candidate is then compared pixel by pixel
at a common size, in the orientation in which the codes agree.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preprocessing.harmonize import look
from preprocessing.harmonize.look import Code, Float, Grey

Index = NDArray[np.int64]

# Of 114 and 110: two unrelated ones differ in half of them, ± 5; a strong change of the window costs up to 20 and 10.
MAX_DIFFERENT_BITS = {"picture": 24, "volume": 16}
MIN_CORRELATION = 0.8
_COMPARE_BLUR_PX = 2.0  # fine structure decides: vessels, speckle, nuclei, and not that both are an eye
COMPARE_PX = 64
MIN_COMPARE_PX = 16
CUBE_COMPARE_PX = 24
_MIN_SHOWN = 0.25  # of the pixels: fewer are not compared alone
_ALL_PAIRS = 4_000_000
_TABLES = 32
_KEY_BITS = (10, 20)
_CHUNK = 2_000_000
_USED_BITS = 110


@dataclass(frozen=True)
class Twin:
    """`left` and `right` (numbers of pictures) show the same, `right` in orientation `turn`."""

    left: int
    right: int
    turn: int
    correlation: float


def candidates(left: Code, right: Code, groups: tuple[Index, Index], kind: str) -> Index:
    """Rows (left, right, turn), sorted, whose codes differ in few bits and whose groups differ."""
    found = [np.empty((0, 3), dtype=np.int64)]
    if len(left) and len(right):
        search = _all_pairs if len(left) * len(right) <= _ALL_PAIRS else _by_tables
        for turn, codes in enumerate(look.orientations(right, kind)):
            for first, second in search(left, codes, MAX_DIFFERENT_BITS[kind]):
                other = groups[0][first] != groups[1][second]
                rows = np.stack([first[other], second[other], np.full(int(other.sum()), turn)], axis=1)
                found.append(np.unique(rows, axis=0))
    return np.unique(np.concatenate(found), axis=0)


def _all_pairs(left: Code, right: Code, most: int) -> Iterator[tuple[Index, Index]]:
    step = max(1, _CHUNK // len(right))
    for start in range(0, len(left), step):
        part = left[start : start + step]
        different = np.bitwise_count(part[:, None, 0] ^ right[None, :, 0])
        different += np.bitwise_count(part[:, None, 1] ^ right[None, :, 1])
        first, second = np.nonzero(different <= most)
        yield first + start, second


def _by_tables(left: Code, right: Code, most: int) -> Iterator[tuple[Index, Index]]:
    width = min(max(math.ceil(math.log2(len(left))), _KEY_BITS[0]), _KEY_BITS[1])
    draw = np.random.default_rng(0)
    bits_left, bits_right = _bits(left), _bits(right)
    weights = (1 << np.arange(width)).astype(np.uint32)
    for _ in range(_TABLES):
        chosen = draw.permutation(_USED_BITS)[:width]
        keys, asked = bits_left[:, chosen] @ weights, bits_right[:, chosen] @ weights
        order = np.argsort(keys, kind="stable")
        begin = np.searchsorted(keys[order], asked, side="left")
        count = np.searchsorted(keys[order], asked, side="right") - begin
        ends = np.cumsum(count)
        at = 0
        while at < len(asked):  # as many questions at a time as give about a chunk of answers
            done = int(ends[at - 1]) if at else 0
            stop = max(at + 1, int(np.searchsorted(ends, done + _CHUNK, side="right")))
            counts = count[at:stop]
            second = np.repeat(np.arange(at, stop), counts)
            place = np.arange(len(second)) - np.repeat(ends[at:stop] - counts - done, counts)
            first = order[np.repeat(begin[at:stop], counts) + place]
            near = np.bitwise_count(left[first] ^ right[second]).sum(axis=1) <= most
            yield first[near], second[near]
            at = stop


def _bits(codes: Code) -> NDArray[np.uint32]:
    return np.unpackbits(codes.view(np.uint8).reshape(len(codes), -1), axis=1).astype(np.uint32)


def confirmed(pairs: Index, left: Sequence[Grey | None], right: Sequence[Grey | None], kind: str) -> list[Twin]:
    """Of candidate rows (left, right, turn), the same pictures: best orientation of each pair, sorted by pair.

    `left[number]` and `right[number]` are pictures as `comparable` makes them, or volumes as `comparable_volume`.
    """
    found: dict[tuple[int, int], Twin] = {}
    for first, second, turn in pairs.tolist():
        one, other = left[first], right[second]
        if one is None or other is None:
            continue
        correlation = same(one, other, turn, kind)
        known = found.get((first, second))
        if correlation >= MIN_CORRELATION and (known is None or known.correlation < correlation):
            found[first, second] = Twin(first, second, turn, round(correlation, 4))
    return [found[pair] for pair in sorted(found)]


def comparable(pixels: NDArray[np.uint8]) -> Grey:
    """A picture as it is kept to be compared: grey, square, no larger than it was, at most `COMPARE_PX`."""
    side = max(MIN_COMPARE_PX, min(COMPARE_PX, *pixels.shape[:2]))
    return look.grey_square(pixels, side)


def comparable_volume(greys: list[Grey]) -> Grey:
    """A volume, from the `look.grey_square`s of its slices in order, as it is kept to be compared."""
    return np.rint(look.cube(greys, CUBE_COMPARE_PX)).astype(np.uint8)


def same(left: Grey, right: Grey, turn: int, kind: str = "picture") -> float:
    """Correlation, -1 to 1, of two pictures or cubes, locally normalised, `right` turned, at the smaller one's size."""
    if kind == "picture":
        side = min(len(left), len(right))
        left, right = (one if len(one) == side else look.grey_square(one, side) for one in (left, right))
    first, second = look.normalised(left, _COMPARE_BLUR_PX), look.normalised(right, _COMPARE_BLUR_PX)
    shown = _shown(left) & look.turned(_shown(right), turn)
    if shown.mean() < _MIN_SHOWN:
        shown = np.ones_like(shown)
    return _correlation(first[shown], look.turned(second, turn)[shown])


def _shown(values: Grey) -> NDArray[np.bool_]:
    """Where a window cut nothing off: what lies at the darkest or the brightest grey may have lain beyond it."""
    result: NDArray[np.bool_] = (values > values.min() + 1) & (values < values.max() - 1)
    return result


def _correlation(left: Float, right: Float) -> float:
    left, right = left - left.mean(), right - right.mean()
    norm = math.sqrt(float((left * left).sum()) * float((right * right).sum()))
    return float((left * right).sum()) / norm if norm > 0 else 0.0
