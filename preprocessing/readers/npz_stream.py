"""One image after the other out of a compressed stack: a zip member has no middle to jump to.

Unpacking from the start for every image would cost the square of their number, and holding the stack would cost
its size in memory. So the stream stays open where the last image ended, and the next image goes on from there.
"""

from __future__ import annotations

import math
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

_OPEN = 4  # image and label of two datasets
_BLOCK = 1 << 20
_streams: OrderedDict[tuple[Any, ...], _Stream] = OrderedDict()


class _Stream:
    """An open member of an NPZ, in C order, at the beginning of its image `at`."""

    def __init__(self, path: Path, member: str) -> None:
        self.archive = zipfile.ZipFile(path)
        self.handle: IO[bytes] = self.archive.open(member)
        version = np.lib.format.read_magic(self.handle)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        self.shape, self.fortran, self.dtype = read(self.handle)
        self.at = 0

    def plane(self, index: int) -> NDArray[Any]:
        """The image `index`, which is not before `at`. Raises ValueError where the stream ends before it."""
        size = math.prod(self.shape[1:]) * self.dtype.itemsize
        ahead = (index - self.at) * size
        while ahead:
            skipped = len(self.handle.read(min(ahead, _BLOCK)))
            if not skipped:
                break
            ahead -= skipped
        content = self.handle.read(size)
        if len(content) != size:
            msg = f"the array ends before its image {index}"
            raise ValueError(msg)
        self.at = index + 1
        return np.frombuffer(content, self.dtype).reshape(self.shape[1:])

    def close(self) -> None:
        self.handle.close()
        self.archive.close()


def read_plane(path: Path, member: str, index: int) -> NDArray[Any] | None:
    """The image `index` along the first axis; None for an array in Fortran order, where no image lies together."""
    stat = path.stat()
    key = (path, member, stat.st_size, stat.st_mtime_ns, stat.st_ino)
    stream = _streams.pop(key, None)
    if stream is not None and stream.at > index:
        stream.close()
        stream = None
    stream = stream or _Stream(path, member)
    if stream.fortran:
        stream.close()
        return None
    try:
        found = stream.plane(index)
    except BaseException:
        stream.close()
        raise
    _streams[key] = stream
    while len(_streams) > _OPEN:
        _streams.popitem(last=False)[1].close()
    return found
