"""COCO compressed run-length encoding, in numpy.

The training core runs on bare GPU machines without pycocotools, so the contract brings its own
codec; tests hold it against pycocotools in both directions. Runs count pixels in column-major
order, background first; each count is written as the difference to the count two before, in
little-endian groups of five bits plus a continuation bit, offset by 48 (the COCO API's
`rleToString`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]

_SMALL = 1 << 14  # pixels; below, looking for the marked box costs more than it saves
_FEW = 96  # runs; below, a loop is faster than a dozen calls of numpy


def encode(mask: NDArray[np.generic], box: tuple[int, int, int, int] | None = None) -> str:
    """Encode a binary mask (height, width) as a COCO compressed RLE `counts` string.

    `box` is its `bbox_xyxy`, where the caller knows it already.
    """
    if mask.ndim != 2:
        msg = f"an RLE is made of a 2D mask (height, width), found shape {mask.shape}"
        raise ValueError(msg)
    height, width = mask.shape
    if box is None:
        box = bbox_xyxy(mask) if mask.size > _SMALL else (0, 0, width, height)
    left, top, right, bottom = box
    # The box of what is marked is put in column-major order with a background pixel before and after it:
    # each change of value is then the start or the end of a foreground run.
    flat = np.zeros((right - left) * height + 2, dtype=bool)
    flat[1:-1].reshape(right - left, height)[:, top:bottom] = mask[top:bottom, left:right].T
    bounds = np.flatnonzero(flat[1:] != flat[:-1])
    counts = np.empty(bounds.size + 1, dtype=np.int64)
    counts[:-1] = bounds
    counts[:-1] += left * height
    counts[-1] = height * width
    counts[1:] -= counts[:-1].copy()
    return _counts_to_string(counts if counts[-1] or counts.size == 1 else counts[:-1])


def decode(counts: str, height: int, width: int) -> Mask:
    """Decode a COCO compressed RLE to a bool mask (height, width).

    Raises ValueError where the runs do not cover exactly height × width pixels.
    """
    runs = string_to_counts(counts)
    if int(runs.sum()) != height * width:
        msg = f"RLE covers {int(runs.sum())} pixels, the image has {height} x {width} = {height * width}"
        raise ValueError(msg)
    values = np.zeros(runs.size, dtype=bool)
    values[1::2] = True
    return np.repeat(values, runs).reshape((width, height)).T


def area(counts: str) -> int:
    """Number of foreground pixels, without decoding the mask."""
    return int(string_to_counts(counts)[1::2].sum())


def bbox_xyxy(mask: NDArray[np.generic]) -> tuple[int, int, int, int]:
    """Tight box (x0, y0, x1, y1) in pixels, x1 and y1 exclusive; zeros for an empty mask."""
    rows = np.flatnonzero(mask.any(axis=1))
    if rows.size == 0:
        return (0, 0, 0, 0)
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    columns = np.flatnonzero(mask[top:bottom].any(axis=0))
    return (int(columns[0]), top, int(columns[-1]) + 1, bottom)


def string_to_counts(counts: str) -> NDArray[np.int64]:
    """Run lengths (background first) of a compressed `counts` string."""
    codes = np.frombuffer(counts.encode("ascii"), dtype=np.uint8).astype(np.int64) - 48
    if codes.size == 0:
        return np.zeros(0, dtype=np.int64)
    last = np.flatnonzero((codes & 0x20) == 0)
    if last.size == 0 or last[-1] != codes.size - 1:
        msg = "RLE string ends inside a number"
        raise ValueError(msg)
    first = np.concatenate(([0], last[:-1] + 1))
    position = np.arange(codes.size) - np.repeat(first, last - first + 1)
    values = np.add.reduceat((codes & 0x1F) << (5 * position), first)
    bits = 5 * (last - first + 1)
    negative = (codes[last] & 0x10) != 0
    values = np.where(negative, values - (np.int64(1) << bits), values)
    # counts[i] = values[i] + counts[i - 2] from the fourth on: two running sums
    runs = values.copy()
    runs[1::2] = np.cumsum(values[1::2])
    if runs.size > 2:
        runs[2::2] = np.cumsum(values[2::2])
    if (runs < 0).any():
        msg = "RLE string holds a negative run"
        raise ValueError(msg)
    return runs


def _counts_to_string(counts: NDArray[np.int64]) -> str:
    values = counts.copy()
    values[3:] -= counts[1:-2]
    return (_groups_by_value(values) if values.size <= _FEW else _groups_at_once(values)).decode("ascii")


def _groups_by_value(values: NDArray[np.int64]) -> bytes:
    out = bytearray()
    for value in values.tolist():
        more = True
        while more:
            group = value & 0x1F
            value >>= 5
            more = value != -1 if group & 0x10 else value != 0
            out.append((group | 0x20 if more else group) + 48)
    return bytes(out)


def _groups_at_once(values: NDArray[np.int64]) -> bytes:
    """The same bytes for all values together: each takes as many groups as its two's complement needs."""
    groups = np.ones(values.size, dtype=np.int64)
    limit = 16
    while (longer := (values >= limit) | (values < -limit)).any():
        groups += longer
        limit *= 32
    step = np.arange(int(groups.max()))
    parts = (values[:, None] >> (5 * step)) & 0x1F
    parts += np.where(step < groups[:, None] - 1, 0x20 + 48, 48)
    out: bytes = parts[step < groups[:, None]].astype(np.uint8).tobytes()
    return out
