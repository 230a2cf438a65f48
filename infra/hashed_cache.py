"""Local copies of remote files whose SHA-256 is known: bounded by bytes, shared by all processes of a machine.

The bound is on what lies in the folder; only files that arrive at the same moment can exceed it together.

A copy is named by its hash, so that equal files lie there once and a file that is there is the right
one: bytes are hashed while they arrive and get their name only after the hash was right. Locks are
`flock`s, which the kernel takes back from a killed process; what such a process had begun is removed
by the next one that makes room. A file that is evicted while somebody reads it stays readable to them.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.errors import DataError, ServiceError, UsageError
from infra.remote import blocks_of, file_bytes

TRIES = 3
PAUSE_SECONDS = 0.5  # before the second try; doubled before each further one
_ARRIVING = ".arriving"


class HashedCache:
    """Files by SHA-256 in `folder`, at most `limit_bytes` of them, the least recently asked for removed first.

    Holds no handle and no lock between calls: it may be copied to other processes and used by threads.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder, self._limit = folder, limit_bytes

    def fetch(self, url: str, sha256: str, what: str) -> Path:
        """Path of a local copy of `url`; it may be evicted later, so open it at once and ask again when it is gone.

        Raises:
            DataError: the file is missing or its SHA-256 is another; `what` (dataset: file) starts the message.
            ServiceError: the store did not answer in `TRIES` tries.
            UsageError: the file alone is larger than the cache.
        """
        target = self._folder / sha256
        if _touch(target):
            return target
        self._folder.mkdir(parents=True, exist_ok=True)
        with _locked(self._folder / f"{sha256}.lock"):
            # another process may have brought it while this one waited
            if not _touch(target):
                self._bring(url, sha256, what, target)
        return target

    def holds(self, sha256: str) -> bool:
        """True where a copy is at hand."""
        return (self._folder / sha256).is_file()

    def _bring(self, url: str, sha256: str, what: str, target: Path) -> None:
        arriving = self._folder / f"{sha256}{_ARRIVING}"
        for attempt in range(TRIES):
            try:
                size = file_bytes(url)
                self._make_room(arriving, size, what)
                found = _copy(url, arriving)
                break
            except ServiceError:
                arriving.unlink(missing_ok=True)
                if attempt == TRIES - 1:
                    raise
                time.sleep(PAUSE_SECONDS * 2**attempt)
            except BaseException:
                arriving.unlink(missing_ok=True)
                raise
        if found != sha256:
            arriving.unlink(missing_ok=True)
            msg = (
                f"{what}: expected SHA-256 {sha256}, found {found} at {url}. "
                "The stored copy is damaged or another version: push the dataset version again"
            )
            raise DataError(msg)
        os.replace(arriving, target)

    def _make_room(self, arriving: Path, size: int, what: str) -> None:
        """Evict until `size` more bytes fit, and claim them by a sparse file of that size."""
        if size > self._limit:
            msg = (
                f"{what}: expected a file that fits the cache of {self._limit} bytes, found {size} bytes. "
                "Raise cache_bytes to a few times the size of a shard"
            )
            raise UsageError(msg)
        with _locked(self._folder / "room.lock"):
            arriving.unlink(missing_ok=True)
            self._remove_abandoned()
            held = sorted(_held(self._folder))
            total = sum(each for _, each, _ in held)
            for _, each, path in held:
                if total + size <= self._limit:
                    break
                if path.suffix != _ARRIVING:
                    path.unlink(missing_ok=True)
                    total -= each
            with arriving.open("wb") as handle:
                handle.truncate(size)

    def _remove_abandoned(self) -> None:
        """Remove what killed processes had begun: an arriving file whose lock nobody holds."""
        for path in self._folder.glob(f"*{_ARRIVING}"):
            with (self._folder / f"{path.stem}.lock").open("w") as handle:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                path.unlink(missing_ok=True)


def _held(folder: Path) -> Iterator[tuple[int, int, Path]]:
    """(last asked for, bytes, path) of every file but the locks."""
    for listed in folder.iterdir():
        if listed.suffix == ".lock":
            continue
        # one that has just got its final name counts under that: missed, another would come on top of the limit
        for path in dict.fromkeys((listed, listed.with_suffix(""))):
            try:
                found = path.stat()
            except FileNotFoundError:
                continue
            yield found.st_mtime_ns, found.st_size, path
            break


def _copy(url: str, place: Path) -> str:
    digest = hashlib.sha256()
    with place.open("r+b") as sink:
        for block in blocks_of(url):
            digest.update(block)
            sink.write(block)
        sink.truncate()
        sink.flush()
        os.fsync(sink.fileno())
    return digest.hexdigest()


def _touch(path: Path) -> bool:
    """Note that `path` was asked for; False where it is not there."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
