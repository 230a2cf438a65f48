"""Unpack an archive that somebody else made, without trusting a word of it.

Refused, before anything gets its final name: paths that are absolute or contain `..`, backslashes
or drive letters; links to anything but a file of the same archive; devices and pipes; two names
that are one name on a file system that ignores case; archives that grow out of proportion, in bytes
or in entries.
"""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Literal

from infra.errors import DataError, UsageError
from infra.storage import sync_folder

Kind = Literal["zip", "tar", "tar.gz"]
BLOCK_BYTES = 1 << 20
MAX_FILES = 1_000_000
# The smallest picture has some 70 bytes: many entries with next to nothing in them only fill the file system.
EMPTY_FREE_FILES = 20_000
MIN_MEAN_BYTES = 16
# Masks of zeros compress a thousandfold in earnest, so the ratio counts only once the result is large.
RATIO_FREE_BYTES = 256 << 20
MAX_RATIO = 100
FOLDER_SUFFIX = ".part-folder"


@dataclass(frozen=True)
class _Member:
    """One entry: `link` is the target of a link as the archive writes it, relative to the archive's root."""

    name: str
    what: Literal["file", "folder", "link"]
    open: Callable[[], AbstractContextManager[IO[bytes]]]
    link: str = ""


@dataclass
class _Names:
    """Names seen so far; finds two spellings of one path and a file used as a folder."""

    archive: Path
    spelling: dict[str, str] = field(default_factory=dict)
    files: set[str] = field(default_factory=set)
    folders: set[str] = field(default_factory=set)

    def clean(self, name: str) -> PurePosixPath:
        """`name` as a relative path; DataError for one that leaves the folder."""
        path = PurePosixPath(name)
        bad = not name or "\x00" in name or "\\" in name or path.is_absolute() or ".." in path.parts or ":" in name[:2]
        if bad:
            raise _refuse(self.archive, "relative paths below one folder", repr(name))
        return path

    def add(self, path: PurePosixPath, *, is_file: bool) -> None:
        """Take `path`; DataError when it collides with an earlier one."""
        for depth in range(1, len(path.parts) + 1):
            given = "/".join(path.parts[:depth])
            key = unicodedata.normalize("NFC", given).casefold()
            earlier = self.spelling.setdefault(key, given)
            as_file = is_file and depth == len(path.parts)
            if earlier != given or key in self.files or (as_file and key in self.folders):
                raise _refuse(self.archive, "every name once, in any case of letters", f"{earlier!r} and {given!r}")
            (self.files if as_file else self.folders).add(key)


def unpack(archive: Path, target: Path, kind: Kind, *, max_bytes: int = 64 << 30) -> Path:
    """Unpack `archive` into the folder `target` and return it; a folder already there is complete and kept.

    `max_bytes` bounds the unpacked size. Raises DataError for an archive that is broken or refused;
    `target` then does not exist.
    """
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    for leftover in target.parent.glob(f".{target.name}.*{FOLDER_SUFFIX}"):
        shutil.rmtree(leftover)
    temporary = target.with_name(f".{target.name}.{os.getpid()}{FOLDER_SUFFIX}")
    temporary.mkdir()
    try:
        _extract(archive, temporary, kind, max_bytes)
        temporary.replace(target)
        sync_folder(target.parent)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, RuntimeError, NotImplementedError) as broken:
        # zipfile answers a password with RuntimeError and an unknown method with NotImplementedError
        raise _refuse(archive, f"a readable {kind} archive", f"{type(broken).__name__}: {broken}") from broken
    except OSError as broken:
        if broken.errno is not None:
            raise  # the disk's trouble, not the archive's
        raise _refuse(archive, f"a readable {kind} archive", f"{type(broken).__name__}: {broken}") from broken
    finally:
        if temporary.exists():
            shutil.rmtree(temporary)
    return target


def _extract(archive: Path, folder: Path, kind: Kind, max_bytes: int) -> None:
    names = _Names(archive)
    packed = archive.stat().st_size
    written = count = 0
    links: list[tuple[PurePosixPath, PurePosixPath]] = []
    for member in _members(archive, kind):
        count += 1
        if count > MAX_FILES:
            raise _refuse(archive, f"at most {MAX_FILES} entries", "more")
        if count > EMPTY_FREE_FILES and written < MIN_MEAN_BYTES * count:
            raise _refuse(archive, "files that hold something", f"{count} entries with {written} bytes in all")
        path = names.clean(member.name)
        if not path.parts:
            continue  # the archive's own root, "./"
        names.add(path, is_file=member.what != "folder")
        place = folder / path
        if member.what == "folder":
            place.mkdir(parents=True, exist_ok=True)
        elif member.what == "link":
            links.append((path, names.clean(member.link)))
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            with member.open() as source, place.open("wb") as sink:
                while block := source.read(BLOCK_BYTES):
                    written += len(block)
                    if written > max_bytes:
                        raise _refuse(archive, f"at most {max_bytes} bytes unpacked", "more")
                    if written > RATIO_FREE_BYTES and written > MAX_RATIO * packed:
                        raise _refuse(archive, f"to grow at most {MAX_RATIO} times", f"{written} bytes from {packed}")
                    sink.write(block)
    for path, goal in links:
        # A link becomes a second name of the same file: nothing can be written or read through it.
        source_path = folder / goal
        if not source_path.is_file():
            raise _refuse(archive, "links to files of the same archive", f"{path} -> {goal}")
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        os.link(source_path, folder / path)


def _members(archive: Path, kind: Kind) -> Iterator[_Member]:
    if kind == "zip":
        return _zip_members(archive)
    if kind in ("tar", "tar.gz"):
        return _tar_members(archive, kind)
    msg = f"archive kind: expected zip, tar or tar.gz, found {kind!r}"
    raise UsageError(msg)


def _zip_members(archive: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as opened:
        for entry in opened.infolist():
            kind = stat.S_IFMT(entry.external_attr >> 16)

            def reader(entry: zipfile.ZipInfo = entry) -> AbstractContextManager[IO[bytes]]:
                return opened.open(entry)

            if entry.is_dir():
                yield _Member(entry.filename, "folder", reader)
            elif kind == stat.S_IFLNK:
                if entry.file_size > 4096:
                    raise _refuse(archive, "links to files of the same archive", f"{entry.filename}: a long link")
                goal = opened.read(entry).decode("utf-8", errors="replace")
                yield _Member(entry.filename, "link", reader, _relative(entry.filename, goal))
            elif kind in (0, stat.S_IFREG):
                yield _Member(entry.filename, "file", reader)
            else:
                raise _refuse(archive, "files and folders", f"{entry.filename}: a device or pipe")


def _tar_members(archive: Path, kind: Kind) -> Iterator[_Member]:
    with tarfile.open(archive, "r:gz" if kind == "tar.gz" else "r:") as opened:
        for entry in opened:

            def reader(entry: tarfile.TarInfo = entry) -> AbstractContextManager[IO[bytes]]:
                handle = opened.extractfile(entry)
                if handle is None:
                    raise _refuse(archive, "files and folders", f"{entry.name}: no content")
                return handle

            if entry.isdir():
                yield _Member(entry.name, "folder", reader)
            elif entry.issym():
                yield _Member(entry.name, "link", reader, _relative(entry.name, entry.linkname))
            elif entry.islnk():
                yield _Member(entry.name, "link", reader, entry.linkname)
            elif entry.isreg():
                yield _Member(entry.name, "file", reader)
            else:
                raise _refuse(archive, "files and folders", f"{entry.name}: a device or pipe")


def _relative(name: str, goal: str) -> str:
    """A symbolic link's target seen from the archive's root; what climbs out keeps its `..` and is refused."""
    if goal.startswith("/"):
        return goal
    parts: list[str] = list(PurePosixPath(name).parent.parts)
    for part in PurePosixPath(goal).parts:
        if part != "..":
            parts.append(part)
        elif parts and parts[-1] != "..":
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts)


def _refuse(archive: Path, expected: str, found: str) -> DataError:
    return DataError(
        f"{archive.name}: expected {expected}, found {found}. The archive was not unpacked; check its source"
    )
