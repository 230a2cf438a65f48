"""Atomic writes and hashing.

Nothing is half written: bytes go to a temporary name in the same folder, are fsynced, and are
renamed over the target. A reader sees the old file or the new one.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from infra.errors import DataError, UsageError

TEMPORARY_SUFFIX = ".part-tmp"


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`; on success fsync it and rename it over `target`.

    On an exception the temporary file is removed and `target` is untouched.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")
    try:
        yield temporary
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, target)
        sync_folder(target.parent)
    except OSError as error:
        if error.filename is None:  # of a write on a full disk; whoever tells of it names the file
            error.filename = str(target)
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def staged_folder(target: Path) -> Iterator[Path]:
    """Yield a new temporary folder beside `target`; on success it becomes `target`, else nothing stays.

    UsageError where `target` is a file or holds anything: nothing of the user's is overwritten or mixed up.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        found = "files in it" if target.is_dir() else "a file"
        msg = f"{target}: expected a new or empty folder, found {found}. Give another folder, or remove it first."
        raise UsageError(msg)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")
    temporary.mkdir()
    try:
        yield temporary
        os.sync()  # thousands of small files: one flush of all is far cheaper than one for each
        os.replace(temporary, target)  # over an empty folder too
        sync_folder(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(target: Path, payload: bytes) -> None:
    """Write `payload` to `target` atomically."""
    with atomic_path(target) as temporary:
        temporary.write_bytes(payload)


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 file; only a line feed ends one.

    `str.splitlines` ends one at U+0085, U+2028 and U+2029 too, which JSON leaves inside its strings as they are.
    """
    text = path.read_text(encoding="utf-8")
    return text.removesuffix("\n").split("\n") if text else []


def read_json_lines(path: Path, what: str, needed: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The objects of a file with one JSON object a line; none where there is no file.

    DataError that names the line which is none, or lacks a key of `needed`; `what` is what a line should be.
    """
    found: list[dict[str, Any]] = []
    lines = read_lines(path) if path.is_file() else []
    for number, line in enumerate(lines, start=1):
        try:
            one = json.loads(line)
            found.append({**one, **{key: one[key] for key in needed}})
        except (ValueError, TypeError, KeyError) as error:
            msg = f"{path}: line {number}: expected {what}, found {line[:80]!r}; restore the file from git"
            raise DataError(msg) from error
    return found


def write_json_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write one JSON object a line, keys in order, atomically."""
    write_text(path, "".join(f"{json.dumps(one, sort_keys=True, ensure_ascii=False)}\n" for one in rows))


def write_text(target: Path, text: str) -> None:
    """Write UTF-8 `text` to `target` atomically."""
    write_bytes(target, text.encode())


def write_json(target: Path, value: Any) -> None:
    """Write `value` as sorted, indented JSON, so that equal values give equal bytes."""
    write_text(target, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def null_for_nan(value: Any) -> Any:
    """A JSON value with None in place of NaN and infinities, which are no JSON."""
    if isinstance(value, Mapping):
        return {key: null_for_nan(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [null_for_nan(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def remove_leftovers(folder: Path, *, recursive: bool = True) -> int:
    """Remove temporary files and folders that a killed process left in or below `folder`; return how many."""
    count = 0
    pattern = f".*{TEMPORARY_SUFFIX.removeprefix('.')}"  # also `.evaluation.old-part-tmp`, the output that is replaced
    for path in sorted(folder.rglob(pattern) if recursive else folder.glob(pattern)):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        count += 1
    return count


def sha256_file(path: Path) -> str:
    """SHA-256 of a file as lower-case hex, read in blocks of 1 MiB."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def sha256_bytes(payload: bytes) -> str:
    """SHA-256 of bytes as lower-case hex."""
    return hashlib.sha256(payload).hexdigest()


def digest_of(value: Any) -> str:
    """SHA-256 of a value's canonical JSON (sorted keys, no spaces): equal values, equal digest."""
    return sha256_bytes(json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode())
