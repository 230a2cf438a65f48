"""Folders elsewhere (`s3://`, `gs://`, `http://`, `memory://`, …), brought into a local copy through fsspec.

The local copy holds exactly the files of the remote folder. Each file is written atomically and
noted in a state file beside the copy, so that a killed copy goes on at the file it had reached and
an unchanged folder costs one listing.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec

from infra.errors import DataError, UsageError
from infra.remote_errors import S3, bucket_is_missing, missing_file, store_error
from infra.storage import atomic_path, read_json, remove_leftovers, write_json

BLOCK_BYTES = 4 << 20
CONNECT_SECONDS = 3
READ_SECONDS = 30
THREADS = 8
SAVE_SECONDS = 2.0  # between two notes of what has arrived
# s3fs would create a bucket for a folder in it: a mistyped name must not
_WITHOUT_FOLDERS = (*S3, "gs://", "gcs://", "az://", "abfs://")
# What a store may tell about the version of a file, most telling first; without any of them, its size must do.
_VERSION_KEYS = ("ETag", "etag", "md5Hash", "md5", "mtime", "LastModified", "last_modified", "updated", "created")
_TIME_KEYS = ("LastModified", "last_modified", "updated", "mtime", "created")  # of them, those that are times


@dataclass(frozen=True)
class RemoteFile:
    """One file: `path` as the store names it, `file` relative to the folder with `/`, `version` an opaque mark.

    `changed_at`: seconds since 1970 by the store's clock; 0 where it does not tell.
    """

    path: str
    file: str
    bytes: int
    version: str
    changed_at: float = 0.0


@dataclass(frozen=True)
class Synced:
    """What a copy did: files and bytes of the folder, and how many of the files had to be copied."""

    files: int
    bytes: int
    copied: int
    removed: int


def is_remote(location: str) -> bool:
    """True for an fsspec URL that is not a plain local folder."""
    return "://" in location and not location.startswith(("file://", "local://"))


def needs_network(location: str) -> bool:
    """True where reading `location` opens a connection (`memory://` does not)."""
    return is_remote(location) and not location.startswith("memory://")


def list_folders(url: str) -> list[str]:
    """Names of the folders directly below `url`, sorted. UsageError where `url` is no folder of a known store."""
    store, root = _open(url)
    try:
        entries: list[dict[str, Any]] = store.ls(root, detail=True)
    except FileNotFoundError as missing:
        if bucket_is_missing(missing):
            raise store_error(url, missing) from missing
        raise UsageError(f"{url}: expected a folder with one folder per dataset, found nothing there") from missing
    except Exception as broken:
        raise store_error(url, broken) from broken
    return sorted(_name(entry["name"]) for entry in entries if _is_folder(entry) and _name(entry["name"]))


def list_files(url: str) -> list[RemoteFile]:
    """All files below `url`, sorted by name, with their sizes. DataError for a name that leaves the folder."""
    store, root = _open(url)
    try:
        found: dict[str, dict[str, Any]] = store.find(root, detail=True)
        complete = {path: _with_size(store, path, entry) for path, entry in found.items()}
    except Exception as broken:
        raise store_error(url, broken) from broken
    base = root.rstrip("/") + "/"
    files = []
    for path, entry in complete.items():
        if "?" in path.rsplit("/", 1)[-1]:
            continue  # a web server's "sort by" link, no file
        relative = path.removeprefix(base)
        if relative == path or ".." in PurePosixPath(relative).parts or relative.startswith("/"):
            raise DataError(f"{url}: expected files below this address, found {path}")
        files.append(RemoteFile(path, relative, int(entry["size"]), _version(entry), _changed_at(entry)))
    return sorted(files, key=lambda each: each.file)


def sync_folder(
    url: str,
    target: Path,
    *,
    max_bytes: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    files: Sequence[RemoteFile] | None = None,
) -> Synced:
    """Make the local folder `target` an exact copy of `url`; return what was done.

    `files` is a listing of `url` that was made before: then what came after it is not copied.
    Files whose size and version mark are those of the last copy are not read again. `max_bytes`
    bounds the folder: a larger one is refused before anything is copied (DataError).
    `progress(done, total)` is told bytes. ServiceError where the store breaks off.
    """
    files = list_files(url) if files is None else files
    total = sum(each.bytes for each in files)
    if max_bytes is not None and total > max_bytes:
        raise DataError(f"{url}: expected at most {max_bytes} bytes, found {total}")
    state_file, state = _noted(target)
    target.mkdir(parents=True, exist_ok=True)
    remove_leftovers(target)
    due = [each for each in files if not _is_current(target / each.file, each, state)]
    done = total - sum(each.bytes for each in due)
    store, _ = _open(url)
    noted = time.monotonic()
    with ThreadPoolExecutor(THREADS) as pool:
        jobs = {pool.submit(_copy, store, each, target / each.file): each for each in due}
        try:
            for job in as_completed(jobs):
                job.result()
                each = jobs[job]
                state[each.file] = [each.bytes, each.version]
                done += each.bytes
                if progress is not None:
                    progress(done, total)
                if time.monotonic() - noted > SAVE_SECONDS:
                    write_json(state_file, state)
                    noted = time.monotonic()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            arrived = [jobs[job] for job in jobs if not job.cancelled() and job.exception() is None]
            write_json(state_file, {**state, **{each.file: [each.bytes, each.version] for each in arrived}})
            raise
    removed = _remove_others(target, {each.file for each in files})
    write_json(state_file, {each.file: [each.bytes, each.version] for each in files})
    return Synced(len(files), total, len(due), removed)


def compare_folder(url: str, target: Path, files: Sequence[RemoteFile] | None = None) -> Synced:
    """What `sync_folder` would do; one listing (or `files`, one made before), and nothing is copied or written."""
    files = list_files(url) if files is None else files
    _, state = _noted(target)
    due = sum(not _is_current(target / each.file, each, state) for each in files)
    keep = {each.file for each in files}
    others = sum(path.relative_to(target).as_posix() not in keep for path in target.rglob("*") if not path.is_dir())
    return Synced(len(files), sum(each.bytes for each in files), due, others)


def _noted(target: Path) -> tuple[Path, dict[str, list[Any]]]:
    """The state file of a copy, and what it says: file -> [bytes, version mark]."""
    file = target.with_name(f".{target.name}.sync.json")
    state: dict[str, list[Any]] = read_json(file) if file.is_file() else {}
    return file, state


def _copy(store: Any, each: RemoteFile, place: Path) -> None:
    """Copy one file atomically and refuse it when it has another size than listed."""
    with atomic_path(place) as temporary:
        found = 0
        try:
            with store.open(each.path, "rb") as source, temporary.open("wb") as sink:
                while block := source.read(BLOCK_BYTES):
                    found += len(block)
                    sink.write(block)
                    if found > each.bytes:
                        break
        except Exception as broken:
            raise store_error(each.path, broken) from broken
        if found != each.bytes:
            raise DataError(f"{each.path}: expected {each.bytes} bytes as listed, found {found}. Run again")


def _is_current(place: Path, each: RemoteFile, state: dict[str, list[Any]]) -> bool:
    noted = state.get(each.file) == [each.bytes, each.version]
    return noted and place.is_file() and place.stat().st_size == each.bytes


def _remove_others(target: Path, keep: set[str]) -> int:
    """Remove local files the remote folder no longer has, and folders left empty; return how many files."""
    removed = 0
    for path in sorted(target.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                shutil.rmtree(path)
        elif path.relative_to(target).as_posix() not in keep:
            path.unlink()
            removed += 1
    return removed


def _open(url: str) -> tuple[Any, str]:
    """The store and the path inside it; UsageError for a protocol that is unknown or not installed."""
    try:
        store, root = fsspec.core.url_to_fs(url, **_options(url))
    except (ValueError, ImportError) as wrong:
        raise UsageError(f"{url}: expected a folder or an fsspec URL that works here, found: {wrong}") from wrong
    return store, str(root).rstrip("/")


def _options(url: str) -> dict[str, Any]:
    """Bounds on waiting, in the words of each store; listings are never remembered."""
    if url.startswith(("http://", "https://")):
        import aiohttp  # 0.3 s to import, needed for web mirrors alone

        wait = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=READ_SECONDS)
        return {"client_kwargs": {"timeout": wait}, "use_listings_cache": False}
    if url.startswith(S3):
        return {
            "config_kwargs": {"connect_timeout": CONNECT_SECONDS, "read_timeout": READ_SECONDS},
            "use_listings_cache": False,
        }
    return {}


def _with_size(store: Any, path: str, entry: dict[str, Any]) -> dict[str, Any]:
    """`entry` with its size: a web listing has none, the file's own headers have."""
    if entry.get("size") is not None:
        return entry
    told: dict[str, Any] = store.info(path)
    if told.get("size") is None:
        raise DataError(f"{path}: expected a file whose size the server tells, found none")
    return told


def _version(entry: dict[str, Any]) -> str:
    for key in _VERSION_KEYS:
        if entry.get(key):
            return str(entry[key])
    return ""


def _changed_at(entry: dict[str, Any]) -> float:
    value = next((entry[key] for key in _TIME_KEYS if entry.get(key)), None)
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return 0.0
    if isinstance(value, datetime):
        return value.timestamp()
    return float(value) if isinstance(value, int | float) else 0.0


def _is_folder(entry: dict[str, Any]) -> bool:
    # a web listing knows folders by the slash at the end alone
    return entry["type"] == "directory" or str(entry["name"]).endswith("/")


def _name(path: str) -> str:
    return path.rstrip("/").rsplit("/", 1)[-1]


def file_bytes(url: str) -> int:
    """Size of one file. DataError where it is missing; ServiceError where the store does not answer."""
    store, path = _open(url)
    try:
        found: dict[str, Any] = _with_size(store, path, store.info(path))
    except FileNotFoundError as missing:
        raise missing_file(url, missing) from missing
    except Exception as broken:
        raise store_error(url, broken) from broken
    return int(found["size"])


def blocks_of(url: str) -> Iterator[bytes]:
    """The bytes of one file, in blocks of at most `BLOCK_BYTES`; errors as of `file_bytes`."""
    store, path = _open(url)
    try:
        with store.open(path, "rb") as source:
            while block := source.read(BLOCK_BYTES):
                yield block
    except FileNotFoundError as missing:
        raise missing_file(url, missing) from missing
    except Exception as broken:
        raise store_error(url, broken) from broken


def put_file(path: Path, url: str) -> None:
    """Copy a local file to `url`; it appears there whole or not at all, as object stores promise.

    ServiceError where the store does not take it.
    """
    store, target = _open(url)
    try:
        if not url.startswith(_WITHOUT_FOLDERS):
            store.makedirs(target.rsplit("/", 1)[0], exist_ok=True)
        store.put_file(str(path), target)
    except Exception as broken:
        raise store_error(url, broken) from broken


def remove_file(url: str) -> None:
    """Remove one file; nothing happens where there is none. ServiceError where the store does not answer."""
    store, path = _open(url)
    try:
        store.rm_file(path)
    except FileNotFoundError:
        return
    except Exception as broken:
        raise store_error(url, broken) from broken
