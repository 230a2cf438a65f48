"""What a dataset's folder holds: every file with its size and SHA-256, quickly the second time.

The cache answers from a file's stat (size, mtime, ctime, inode). A file that changed less than two
seconds before it was hashed is not remembered: another write could leave the same time stamp behind
(git calls such an entry racily clean).
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.errors import DataError
from infra.storage import sha256_file, write_json, write_text

logger = logging.getLogger(__name__)

IGNORED = frozenset({".DS_Store", "Thumbs.db"})
RACY_NS = 2_000_000_000
CACHE_VERSION = 1
THREADS = min(8, (os.cpu_count() or 1) * 2)
ATTEMPTS = 3
_OTHER_BYTES = re.compile(r"\\x[0-9a-f]{2}")

File = dict[str, Any]  # {"file": str, "bytes": int, "sha256": str}


@dataclass(frozen=True)
class _Hashed:
    """One file's digest; `stamp` is [size, mtime_ns, ctime_ns, inode], None where it may not be remembered."""

    file: str
    bytes: int
    sha256: str
    stamp: list[int] | None
    read: bool


def scan(root: Path, cache_file: Path, shown: Callable[[str], str] | None = None) -> list[File]:
    """All regular files below `root`, sorted by name: `{"file": posix path below root, "bytes", "sha256"}`.

    `cache_file` (JSON, may serve many roots) saves hashing what has not changed. Links are followed
    only to files inside `root`; `.DS_Store` and `Thumbs.db` are left out. Raises DataError for a
    missing root, an unreadable file and a file that will not stand still. Names that are not UTF-8: see `badly_named`.

    `shown` gives the name by which messages may call a file below `root`, or a folder; None: by its path. The
    result and `cache_file` have the real names.
    """
    say = shown or (lambda name: str(root / name))
    if not root.is_dir():
        raise DataError(f"{root}: expected a dataset's folder, found none. Check SEGFOUNDRY_MIRROR")
    key = str(root.resolve())
    known: dict[str, list[Any]] = _read_cache(cache_file).get(key, {})
    names = []
    for name, listed in _walk(root, say):
        if listed:
            names.append(name)
        else:
            logger.warning("%s: a link out of the dataset, to a folder or to nothing: not followed", say(_text(name)))
    names.sort(key=os.fsencode)
    with ThreadPoolExecutor(THREADS) as pool:
        hashed = list(pool.map(lambda name: _hash(root, name, known.get(_text(name)), say), names))
    kept = {each.file: [*each.stamp, each.sha256] for each in hashed if each.stamp is not None}
    if kept != known:
        with _exclusive(cache_file):
            # read again: another dataset's scan may have written since
            cache = _read_cache(cache_file)
            cache[key] = kept
            write_json(cache_file, {"version": CACHE_VERSION, "roots": cache})
    logger.debug("%s: %d files, %d hashed", root, len(hashed), sum(each.read for each in hashed))
    return [{"file": each.file, "bytes": each.bytes, "sha256": each.sha256} for each in hashed]


def write_inventory(path: Path, files: list[File]) -> None:
    """Write `files` as one JSON a line, sorted by file: equal files give equal bytes."""
    ordered = sorted(files, key=lambda each: str(each["file"]))
    lines = [
        json.dumps({key: each[key] for key in ("file", "bytes", "sha256")}, ensure_ascii=False, separators=(",", ":"))
        for each in ordered
    ]
    write_text(path, "".join(f"{line}\n" for line in lines))


def read_inventory(path: Path) -> list[File]:
    """The files of an inventory; DataError naming the line that is not what `write_inventory` wrote."""
    files: list[File] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if not line:
            continue
        try:
            entry = json.loads(line)
            files.append({"file": str(entry["file"]), "bytes": int(entry["bytes"]), "sha256": str(entry["sha256"])})
        except (ValueError, KeyError, TypeError) as wrong:
            msg = f"{path.name}:{number}: expected file, bytes and sha256 as JSON, found {line[:80]!r}. Fetch again"
            raise DataError(msg) from wrong
    return files


def names_below(root: Path) -> Iterator[str]:
    """Posix paths of what `scan` lists, in no order: regular files, and links to one inside `root`.

    Folders, pipes, sockets and devices are not opened: a pipe would be waited for.
    """
    return (_text(name) for name, listed in _walk(root, lambda name: str(root / name)) if listed)


def badly_named(shown: str) -> bool:
    """Whether a listed name stands for one that is not UTF-8: no table can hold that, so the file is refused."""
    return _OTHER_BYTES.search(shown) is not None


def _walk(root: Path, say: Callable[[str], str]) -> Iterator[tuple[str, bool]]:
    """Paths below `root` as the system has them; False for links that are not followed."""
    inside = root.resolve()

    def unreadable(error: OSError) -> None:
        folder = say(_text(Path(os.fsdecode(error.filename)).relative_to(root).as_posix()))
        raise DataError(f"{folder}: expected a readable folder, found {error.strerror}") from None

    for folder, folders, files in os.walk(root, onerror=unreadable):
        for name in [*folders, *files]:
            path = Path(folder, name)
            if path.is_symlink() and not _leads_inside(path, inside):
                yield path.relative_to(root).as_posix(), False
            elif name not in IGNORED and path.is_file():
                yield path.relative_to(root).as_posix(), True


def _text(name: str) -> str:
    """A path as text: bytes that are not UTF-8 as `\\xe9`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _leads_inside(link: Path, root: Path) -> bool:
    try:
        goal = link.resolve(strict=True)
    except (OSError, RuntimeError):  # to nothing, or in a circle
        return False
    return goal.is_relative_to(root) and goal.is_file()


def _hash(root: Path, name: str, known: list[Any] | None, say: Callable[[str], str]) -> _Hashed:
    path = root / name
    try:
        for _ in range(ATTEMPTS):
            now = time.time_ns()
            before = path.stat()
            stamp = _stamp(before)
            if known is not None and known[:-1] == stamp:
                return _Hashed(_text(name), before.st_size, str(known[-1]), stamp, read=False)
            digest = sha256_file(path)
            if _stamp(path.stat()) == stamp:
                racy = max(before.st_mtime_ns, before.st_ctime_ns) > now - RACY_NS
                return _Hashed(_text(name), before.st_size, digest, None if racy else stamp, read=True)
    except OSError as wrong:
        # without its cause, which names the file as it is
        msg = f"{say(_text(name))}: expected a readable file, found {wrong.strerror}. Check its permissions"
        raise DataError(msg) from None
    msg = f"{say(_text(name))}: expected a file at rest, found one that is being written. Wait and run again"
    raise DataError(msg)


def _stamp(found: os.stat_result) -> list[int]:
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def _read_cache(cache_file: Path) -> dict[str, dict[str, list[Any]]]:
    """Root -> file -> stamp and digest. A cache of another version or a broken one is as good as none."""
    try:
        value = json.loads(cache_file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        logger.warning("%s is not readable: all files are hashed again", cache_file)
        return {}
    if not isinstance(value, dict) or value.get("version") != CACHE_VERSION:
        return {}
    roots: dict[str, dict[str, list[Any]]] = value["roots"]
    return roots


@contextmanager
def _exclusive(cache_file: Path) -> Iterator[None]:
    cache_file.parent.mkdir(parents=True, exist_ok=True)
    with cache_file.with_name(f".{cache_file.name}.lock").open("wb") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
