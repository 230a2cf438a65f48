"""Is a NIfTI file all there? ITK fills what is missing at its end with zeros and says nothing.

A copy that broke off would otherwise become a volume with an empty top, and its label would teach
that the organ is made of nothing. NRRD and MetaImage need no such check: ITK refuses them.

To know it, a compressed file must be unpacked to its end; `unpacked` lets ITK read what was unpacked, so
that this is done once, by libdeflate, and not twice more by zlib.
"""

from __future__ import annotations

import gzip
import io
import mmap
import os
import struct
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import imagecodecs

from infra.errors import CaseError
from preprocessing.readers.nifti_header import HEADER_BYTES, is_packed, not_whole, parse

_BLOCK = 1 << 20
_SPARE = 64 << 20  # extensions and padding after the voxels; what is longer is no longer read
_UNPACKED_AT_ONCE = 2 << 30  # bytes of a file that is unpacked in memory


@contextmanager
def unpacked(path: Path) -> Iterator[Path | None]:
    """A file in memory that holds the unpacked `path` (.nii.gz), known to be whole and sound; else None.

    None says nothing about the file: it may be damaged, too large, in several gzip members, or this system
    may have no files in memory. Then the caller reads `path` itself, after `check_nifti_whole`.
    """
    descriptor = os.memfd_create("nifti") if hasattr(os, "memfd_create") and Path("/proc/self/fd").is_dir() else None
    if descriptor is None:
        yield None
        return
    try:
        if not _unpack(path, descriptor):
            yield None
            return
        # ITK goes by the ending of a name, and a file in memory has none
        with tempfile.TemporaryDirectory(prefix="sf-nifti-", dir=_links()) as folder:
            link = Path(folder) / "volume.nii"
            link.symlink_to(f"/proc/self/fd/{descriptor}")
            yield link
    finally:
        os.close(descriptor)


def _links() -> Path | None:
    """Where a link costs microseconds: the memory's own file system, else the temporary folder."""
    memory = Path("/dev/shm")
    return memory if os.access(memory, os.W_OK | os.X_OK) else None


def _unpack(path: Path, descriptor: int) -> bool:
    """Unpack one gzip member as long as its NIfTI header promises into an open file; False where it is not that."""
    try:
        if path.stat().st_size > _UNPACKED_AT_ONCE:
            return False
        packed = path.read_bytes()
        header = zlib.decompressobj(wbits=31).decompress(packed[: 16 * HEADER_BYTES], HEADER_BYTES)
        promised = parse(header).promised_bytes
        (size,) = struct.unpack("<I", packed[-4:])
        if not promised <= size <= min(promised + _SPARE, _UNPACKED_AT_ONCE):
            return False
        os.ftruncate(descriptor, size)
        with mmap.mmap(descriptor, size) as out:
            return bool(len(imagecodecs.gzip_decode(packed, out=out)) == size)
    except (OSError, zlib.error, struct.error, CaseError, RuntimeError, ValueError):
        return False


def check_nifti_whole(path: Path) -> None:
    """CaseError `unreadable` unless `path` (.nii or .nii.gz) holds as many bytes as its header promises.

    A compressed file is unpacked to its end, so that its own checksum counts too.
    """
    try:
        with gzip.open(path, "rb") if is_packed(path) else path.open("rb") as handle:
            header = handle.read(HEADER_BYTES)
            promised = parse(header).promised_bytes
            found = len(header) + _count(handle, promised + _SPARE - len(header))
    except (EOFError, zlib.error, gzip.BadGzipFile, struct.error) as error:
        raise not_whole(f"{type(error).__name__}: {error}") from error
    if found < promised:
        raise not_whole(f"{found} bytes where the header promises {promised}")


def _count(handle: io.BufferedIOBase, most: int) -> int:
    """Bytes left in `handle`, at most about `most`."""
    count = 0
    while count < most and (block := handle.read(_BLOCK)):
        count += len(block)
    return count
