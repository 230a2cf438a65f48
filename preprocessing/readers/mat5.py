"""Is a MAT file of version 5 put together as its format says? scipy's reader in C takes its types on trust.

One wrong byte in a tag makes it read outside of its tables and ends the process, and with it the run of all the
other cases. So the tags are walked first (MAT-File Format, MathWorks, chapter 1: level 5); nothing is decoded.
Of compressed elements the beginning is looked at, where the tags of plain arrays are; the rest has a checksum.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

_MATRIX, _COMPRESSED = 14, 15
_TYPES = frozenset({1, 2, 3, 4, 5, 6, 7, 9, 12, 13, _MATRIX, _COMPRESSED, 16, 17, 18})
_SIZES = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8, 16: 1, 17: 2, 18: 4}
_CLASSES = range(1, 18)
_CELL, _STRUCT, _OBJECT = 1, 2, 3
_PLAIN = frozenset({4, *range(6, 16)})  # text and numbers
_COMPLEX = 0x0800
_HEAD_BYTES = 1 << 16
_DEEPEST = 32


def check_mat5(path: Path) -> None:
    """ValueError unless every tag of `path` has a type of the format and lies within the element around it."""
    with path.open("rb") as handle:
        header = handle.read(128)
        order = {b"IM": "<", b"MI": ">"}.get(header[126:128])
        if order is None:
            _fail("no mark of byte order")
        size = path.stat().st_size
        at = 128
        while at < size:
            handle.seek(at)
            tag = handle.read(8)
            if len(tag) < 8:
                _fail(f"{len(tag)} bytes where a tag should be")
            kind, count = struct.unpack(f"{order}II", tag)
            if kind not in (_MATRIX, _COMPRESSED) or at + 8 + count > size:
                _fail(f"an element of type {kind} and {count} bytes at {at}")
            if kind == _COMPRESSED:
                content = zlib.decompressobj().decompress(handle.read(min(count, _HEAD_BYTES)), _HEAD_BYTES)
                inner, length = struct.unpack_from(f"{order}II", content, 0)
                if inner != _MATRIX:
                    _fail(f"a compressed element of type {inner}")
                _walk(content[8:], length, order or "<", 0)
            else:
                _walk(handle.read(min(count, _HEAD_BYTES)), count, order or "<", 0)  # its values have no tags
            at += 8 + count


def _walk(content: bytes, length: int, order: str, depth: int) -> None:
    """Walk the tags of a matrix of `length` bytes, as far as `content`, its beginning, reaches."""
    if depth > _DEEPEST:
        _fail("arrays within arrays without end")
    at, number, kind_of_array = 0, 0, 0
    while at < length:
        if at + 8 > len(content):
            return
        kind, count, start, step = _tag(content, at, order)
        if kind not in _TYPES - {_COMPRESSED} or start + count > max(length, at + 8):
            _fail(f"an element of type {kind} and {count} bytes within an array of {length}")
        if number == 0:
            kind_of_array = _flags(content, start, kind, count, order)
        elif number == 1:
            if kind != 5 or count < 8 or count % 4:
                _fail(f"dimensions of type {kind} and {count} bytes")
        elif number == 2:
            if kind not in (1, 2, 16):
                _fail(f"a name of type {kind}")
        elif kind == _MATRIX:
            if kind_of_array not in (_CELL, _STRUCT, _OBJECT, 16, 17):
                _fail("an array within a plain array")
            _walk(content[start : start + count], count, order, depth + 1)
        elif kind_of_array == _CELL:
            _fail(f"an element of type {kind} in a cell array")
        elif kind_of_array in _PLAIN and (kind not in _SIZES or count % _SIZES[kind] or at + step < length):
            _fail(f"{count} bytes of type {kind} as the one value of a plain array")
        number += 1
        at += step
    if number < 3 or (kind_of_array in _PLAIN and number != 4):
        _fail(f"an array of {number} elements")


def _tag(content: bytes, at: int, order: str) -> tuple[int, int, int, int]:
    """Type, bytes, where they start, and how far on the next tag is; small elements have both in one word."""
    word, count = struct.unpack_from(f"{order}II", content, at)
    if word >> 16:
        if word >> 16 > 4:
            _fail(f"a small element of {word >> 16} bytes")
        return word & 0xFFFF, word >> 16, at + 4, 8
    return word, count, at + 8, 8 + (count + 7) // 8 * 8


def _flags(content: bytes, start: int, kind: int, count: int, order: str) -> int:
    if kind != 6 or count != 8:
        _fail(f"flags of type {kind} and {count} bytes")
    (flags,) = struct.unpack_from(f"{order}I", content, start)
    if flags & 0xFF not in _CLASSES or flags & _COMPLEX:
        _fail(f"an array of class {flags & 0xFF}, or of complex numbers, which are no picture")
    return int(flags & 0xFF)


def _fail(found: str) -> None:
    msg = f"a MAT file is not put together as its format says: {found}"
    raise ValueError(msg)
