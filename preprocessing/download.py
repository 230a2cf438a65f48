"""Download one file over HTTP: resumable, bounded in time and size, checked by SHA-256.

The bytes grow in `TARGET.part`; `TARGET.part.json` says which address and which version of the file
(ETag or Last-Modified) they are a piece of, so that two versions are never spliced together. Only a
complete, checked file gets the name `TARGET`. `TARGET.sha256` is written beside a file whose
publisher gives no digest: the first download is trusted, every later one must equal it.
"""

from __future__ import annotations

import fcntl
import json
import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import httpx

from infra.errors import DataError, ServiceError
from infra.storage import sha256_file, write_json, write_text
from preprocessing.unpack import unpack

__all__ = ["Downloaded", "Progress", "Timeouts", "download", "unpack"]

logger = logging.getLogger(__name__)

BLOCK_BYTES = 1 << 18
RETRY_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
Progress = Callable[[int, int | None], None]  # (bytes done, bytes in all where known)


@dataclass(frozen=True)
class Timeouts:
    """Bounds of one download, in seconds; `attempts` counts tries in a row that brought no new byte."""

    connect_s: float = 3.0
    read_s: float = 20.0
    total_s: float = 3600.0
    attempts: int = 5
    backoff_s: float = 0.5


@dataclass(frozen=True)
class Downloaded:
    """A complete file. `resumed_from` is the byte at which this call went on (0: from the start)."""

    path: Path
    sha256: str
    bytes: int
    resumed_from: int
    fetched: bool


class _Interrupted(Exception):
    """The connection broke off or the server is busy: worth another attempt."""


def download(
    url: str,
    target: Path,
    *,
    sha256: str | None,
    expected_bytes: int | None,
    max_bytes: int | None = None,
    timeouts: Timeouts | None = None,
    progress: Progress | None = None,
) -> Downloaded:
    """Fetch `url` into `target` and return its digest; a file already there and right is not fetched again.

    `sha256` is the published digest (lower-case hex) or None. `expected_bytes` is the published size or
    None: a larger file is refused, and where neither a digest nor the server's own length says when
    the file is whole, this size does. `max_bytes` is what the caller is ready to take at most.
    `progress(done, total)` is told bytes. Raises DataError for what can never become right (wrong
    bytes, too large, 404) and ServiceError for an address that cannot be reached in time.
    """
    timeouts = timeouts or Timeouts()
    target.parent.mkdir(parents=True, exist_ok=True)
    with _exclusive(target):
        wanted, trusted_from = _wanted(target, sha256)
        if target.is_file() and wanted is not None:
            found = sha256_file(target)
            if found == wanted:
                return Downloaded(target, found, target.stat().st_size, 0, fetched=False)
            logger.warning("%s changed on disk since it was downloaded: fetched again", target)
        deadline = time.monotonic() + timeouts.total_s
        resumed_from = _fetch(
            _Job(url, target, expected_bytes, max_bytes, sha256 is not None, timeouts, progress, deadline)
        )
        part = _part(target)
        found = sha256_file(part)
        if wanted is not None and found != wanted:
            _discard(target)
            msg = f"{url}: expected SHA-256 {wanted} ({trusted_from}), found {found}. The file was removed"
            raise DataError(msg)
        if wanted is None:
            write_text(_record(target), f"{found}  {target.name}\n")
        size = part.stat().st_size
        part.replace(target)
        _state(target).unlink(missing_ok=True)
        return Downloaded(target, found, size, resumed_from, fetched=True)


@dataclass(frozen=True)
class _Job:
    """What stays the same over all requests of one download."""

    url: str
    target: Path
    expected_bytes: int | None
    max_bytes: int | None
    has_digest: bool
    timeouts: Timeouts
    progress: Progress | None
    deadline: float  # of time.monotonic()


def _fetch(job: _Job) -> int:
    """Bring all bytes into the part file; return the byte at which this call began."""
    first = _resume_at(job)
    failures = 0
    with _client(job.timeouts) as client:
        while True:
            start = _resume_at(job)
            try:
                return min(first, _stream(client, job, start))
            except (httpx.TransportError, _Interrupted) as broken:
                part = _part(job.target)
                gained = part.exists() and part.stat().st_size > start
                failures = 1 if gained else failures + 1
                left = job.deadline - time.monotonic()
                if failures >= job.timeouts.attempts or left <= 0:
                    msg = (
                        f"{job.url}: expected the whole file within {job.timeouts.total_s:.0f} s, found"
                        f" {type(broken).__name__}: {broken}, {failures} attempts in a row without a new byte."
                        " What arrived is kept; the next run goes on from there"
                    )
                    raise ServiceError(msg) from broken
                pause = min(job.timeouts.backoff_s * 2 ** (failures - 1), 8.0, left)
                logger.info("%s broke off (%s); trying again in %.1f s", job.url, broken, pause)
                time.sleep(pause)
            except (httpx.InvalidURL, httpx.HTTPError) as wrong:
                msg = f"{job.url}: expected an address that answers, found {type(wrong).__name__}: {wrong}"
                raise DataError(f"{msg}. Check the card's address") from wrong


def _stream(client: httpx.Client, job: _Job, start: int) -> int:
    """One request from byte `start`; returns the byte at which the server really began."""
    known = _read_state(job.target)
    headers = {"Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if known.get("version"):
            headers["If-Range"] = known["version"]
    with client.stream("GET", job.url, headers=headers) as answer:
        _check_answer(answer, job.url)
        total = _range_total(answer) if answer.status_code in (206, 416) else _length(answer)
        if answer.status_code == 416:
            if total == start:
                return start
            _begin_again(job, f"the server has no byte {start}")
        elif answer.status_code == 206:
            if _range_start(answer) != start:
                _begin_again(job, f"asked for byte {start}, got {answer.headers.get('Content-Range')}")
            if known.get("bytes") not in (None, total):
                _begin_again(job, f"the file had {known['bytes']} bytes and now has {total}")
        else:
            start = 0  # the server ignores Range, or the file has changed: the answer is the whole file
        _refuse_larger(job, total)
        if total is None and not job.has_digest:
            total = job.expected_bytes
        write_json(_state(job.target), {"url": job.url, "version": _version(answer), "bytes": total})
        done = start
        with _part(job.target).open("r+b" if start else "wb") as handle:
            handle.seek(start)
            handle.truncate()
            for block in answer.iter_raw(BLOCK_BYTES):
                handle.write(block)
                done += len(block)
                _refuse_larger(job, done)
                if job.progress is not None:
                    job.progress(done, total)
                if time.monotonic() > job.deadline:
                    msg = f"the time limit of {job.timeouts.total_s:.0f} s is over at byte {done}"
                    raise _Interrupted(msg)
        if total is not None and done < total:
            msg = f"the connection ended at byte {done} of {total}"
            raise _Interrupted(msg)
    return start


def _begin_again(job: _Job, why: str) -> NoReturn:
    _discard_part(job.target)
    msg = f"{why}: begun again"
    raise _Interrupted(msg)


def _client(timeouts: Timeouts) -> httpx.Client:
    bounds = httpx.Timeout(timeouts.read_s, connect=timeouts.connect_s)
    return httpx.Client(timeout=bounds, follow_redirects=True, max_redirects=5)


def _check_answer(answer: httpx.Response, url: str) -> None:
    """Sort answers: fine (200, 206, 416), worth a retry, or wrong for good (DataError)."""
    if url.startswith("https://") and answer.url.scheme != "https":
        msg = f"{url}: expected https all the way, found a redirect to {answer.url.scheme}://{answer.url.host}"
        raise DataError(msg)
    if answer.status_code in RETRY_STATUS:
        msg = f"HTTP {answer.status_code}"
        raise _Interrupted(msg)
    if answer.status_code not in (200, 206, 416):
        msg = f"{url}: expected HTTP 200, found {answer.status_code} {answer.reason_phrase}. Check the card's address"
        raise DataError(msg)


def _refuse_larger(job: _Job, found: int | None) -> None:
    """DataError, and nothing kept, where `found` bytes are more than expected or allowed."""
    limits = [limit for limit in (job.expected_bytes, job.max_bytes) if limit is not None]
    if found is not None and limits and found > min(limits):
        _discard_part(job.target)
        msg = f"{job.url}: expected at most {min(limits)} bytes, found {found}. Nothing was kept"
        raise DataError(f"{msg}; check the card's size and the limit")


def _length(answer: httpx.Response) -> int | None:
    value = answer.headers.get("Content-Length", "")
    return int(value) if value.isdigit() else None


def _range_start(answer: httpx.Response) -> int | None:
    found = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
    return int(found[1]) if found else None


def _range_total(answer: httpx.Response) -> int | None:
    found = re.search(r"/(\d+)$", answer.headers.get("Content-Range", ""))
    return int(found[1]) if found else None


def _version(answer: httpx.Response) -> str | None:
    """What names this version of the file in If-Range: a strong ETag, else Last-Modified (RFC 9110, 13.1.5)."""
    tag = answer.headers.get("ETag", "")
    if tag and not tag.startswith("W/"):
        return str(tag)
    modified: str | None = answer.headers.get("Last-Modified")
    return modified


def _resume_at(job: _Job) -> int:
    """Bytes of the part file that belong to this address; a piece of another one is thrown away."""
    part = _part(job.target)
    if not part.exists():
        return 0
    if _read_state(job.target).get("url") != job.url:
        _discard_part(job.target)
        return 0
    return part.stat().st_size


def _read_state(target: Path) -> dict[str, Any]:
    try:
        value: dict[str, Any] = json.loads(_state(target).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return value


def _wanted(target: Path, published: str | None) -> tuple[str | None, str]:
    """The digest the file must have, and who says so."""
    if published is not None:
        return published.lower(), "published with the dataset"
    record = _record(target)
    if record.is_file():
        return record.read_text(encoding="utf-8").split()[0], f"recorded at the first download in {record.name}"
    return None, ""


def _discard_part(target: Path) -> None:
    _part(target).unlink(missing_ok=True)
    _state(target).unlink(missing_ok=True)


def _discard(target: Path) -> None:
    _discard_part(target)
    target.unlink(missing_ok=True)


def _part(target: Path) -> Path:
    return target.with_name(f"{target.name}.part")


def _state(target: Path) -> Path:
    return target.with_name(f"{target.name}.part.json")


def _record(target: Path) -> Path:
    return target.with_name(f"{target.name}.sha256")


@contextmanager
def _exclusive(target: Path) -> Iterator[None]:
    """One process at a time per target; the lock dies with its process."""
    with target.with_name(f".{target.name}.lock").open("wb") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
