"""Checkpoints of a run: everything that the run needs to go on, in a folder or any fsspec store.

A checkpoint is one file of tensors and plain values (`step-00000120.ckpt`) and, written after it, a marker
(`step-00000120.json`) with its length and SHA-256. Without its marker a checkpoint does not exist: so a process
that is killed while it writes leaves nothing that anyone would read. An object store needs no more than that a
file appears whole, which all of them promise.

Writing happens in a thread, from a copy of the state in memory; the next checkpoint waits for the one before.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from infra.errors import DataError
from infra.remote import blocks_of, is_remote, list_files, put_file, remove_file
from infra.storage import atomic_path, remove_leftovers, sha256_file, write_bytes

KEPT = 2
_STEM = re.compile(r"^step-(\d{8})$")

State = dict[str, Any]


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint: the optimiser step after which it was taken, and what its marker says."""

    step: int
    bytes: int
    sha256: str

    @property
    def stem(self) -> str:
        """Name of its two files without the ending."""
        return stem_of(self.step)


def stem_of(step: int) -> str:
    """Name of a step's two files without the ending; names sort as steps do."""
    return f"step-{step:08d}"


class CheckpointStore:
    """The checkpoints of one run below `root`, a folder or an fsspec URL.

    One process writes at a time (rank 0); any number may read.
    """

    def __init__(self, root: str, kept: int = KEPT) -> None:
        self.root, self._kept = root.rstrip("/"), kept
        self._folder = None if is_remote(self.root) else Path(self.root.removeprefix("file://"))

    def complete(self) -> list[Checkpoint]:
        """All complete checkpoints, oldest first. A marker that is no marker is passed over."""
        found = []
        for name in self._names():
            step = _step_of(name, ".json")
            if step is None:
                continue
            try:
                marker = json.loads(self._read(name))
                found.append(Checkpoint(step, int(marker["bytes"]), str(marker["sha256"])))
            except (ValueError, KeyError, TypeError, DataError, FileNotFoundError):
                continue  # removed in between, or damaged: the one before it will do
        return sorted(found, key=lambda each: each.step)

    def newest_step(self) -> int | None:
        """Step of the newest complete checkpoint."""
        complete = self.complete()
        return complete[-1].step if complete else None

    def write(self, step: int, state: State) -> None:
        """Write a checkpoint of CPU tensors and plain values, then remove all but the newest `kept`."""
        name = f"{stem_of(step)}.ckpt"
        with self._written(name) as temporary:
            torch.save(state, temporary)
            marker = {"step": step, "bytes": temporary.stat().st_size, "sha256": sha256_file(temporary)}
        self._write(f"{stem_of(step)}.json", json.dumps(marker, sort_keys=True).encode())
        self._prune()

    @contextmanager
    def opened(self, step: int | None = None) -> Iterator[tuple[int, Path] | None]:
        """Step and local file of the newest checkpoint whose bytes are what its marker says; None without any.

        Args:
            step: that one and no other.

        A damaged checkpoint is passed over for the one before it. DataError where all are damaged: starting anew
        without a word would throw away a run. A copy of a remote file lives as long as the context.
        """
        candidates = [each for each in self.complete() if step in (None, each.step)]
        if not candidates and step is None:
            yield None
            return
        with tempfile.TemporaryDirectory(prefix="checkpoint-") as scratch:
            for checkpoint in reversed(candidates):
                file = self._local(checkpoint, Path(scratch))
                if file is not None:
                    yield checkpoint.step, file
                    return
        steps = ", ".join(str(each.step) for each in candidates) or f"none at step {step}"
        msg = (
            f"{self.root}: expected a checkpoint whose bytes are as they were written, found damaged ones at steps: "
            f"{steps}. Bring them back from a copy, or remove the folder to start this run anew"
        )
        raise DataError(msg)

    def try_writing(self) -> None:
        """Write and remove a small file; UsageError or ServiceError where the store does not take it."""
        name = f"try-{secrets.token_hex(8)}.json"
        self._write(name, b"{}")
        self._names()
        self._remove(name)

    def clean(self) -> None:
        """Remove what a killed writer left: for the one process that will write."""
        if self._folder is not None and self._folder.is_dir():
            remove_leftovers(self._folder)
        whole = {each.step for each in self.complete()}
        for name in self._names():
            step = _step_of(name, ".ckpt")
            if step is not None and step not in whole:
                self._remove(name)

    def remove(self) -> None:
        """Remove all checkpoints of the run, when it is over."""
        for name in sorted(self._names(), key=lambda each: not each.endswith(".json")):
            if _step_of(name, ".json") is not None or _step_of(name, ".ckpt") is not None:
                self._remove(name)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _prune(self) -> None:
        for checkpoint in self.complete()[: -self._kept]:
            # the marker first: what is half removed does not exist
            self._remove(f"{checkpoint.stem}.json")
            self._remove(f"{checkpoint.stem}.ckpt")

    def _local(self, checkpoint: Checkpoint, scratch: Path) -> Path | None:
        name = f"{checkpoint.stem}.ckpt"
        if self._folder is not None:
            file = self._folder / name
        else:
            file = scratch / name
            try:
                with file.open("wb") as sink:
                    for block in blocks_of(f"{self.root}/{name}"):
                        sink.write(block)
            except DataError:
                return None
        if not file.is_file() or file.stat().st_size != checkpoint.bytes or sha256_file(file) != checkpoint.sha256:
            return None
        return file

    def _names(self) -> list[str]:
        if self._folder is None:
            return [each.file for each in list_files(self.root) if "/" not in each.file]
        return [path.name for path in self._folder.iterdir()] if self._folder.is_dir() else []

    def _read(self, name: str) -> bytes:
        if self._folder is None:
            return b"".join(blocks_of(f"{self.root}/{name}"))
        return (self._folder / name).read_bytes()

    @contextmanager
    def _written(self, name: str) -> Iterator[Path]:
        if self._folder is not None:
            with atomic_path(self._folder / name) as temporary:
                yield temporary
            return
        with tempfile.TemporaryDirectory(prefix="checkpoint-") as scratch:
            yield Path(scratch) / name
            put_file(Path(scratch) / name, f"{self.root}/{name}")

    def _write(self, name: str, payload: bytes) -> None:
        if self._folder is not None:
            write_bytes(self._folder / name, payload)
            return
        with self._written(name) as temporary:
            temporary.write_bytes(payload)

    def _remove(self, name: str) -> None:
        if self._folder is not None:
            (self._folder / name).unlink(missing_ok=True)
        else:
            remove_file(f"{self.root}/{name}")


def _step_of(name: str, ending: str) -> int | None:
    if not name.endswith(ending):
        return None
    match = _STEM.match(name.removesuffix(ending))
    return int(match.group(1)) if match else None


class CheckpointWriter:
    """Writes checkpoints of a store in a thread, one at a time; training goes on meanwhile."""

    def __init__(self, store: CheckpointStore) -> None:
        self.store = store
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def save(self, step: int, state: State) -> None:
        """Copy `state` to memory and begin to write it; waits for the checkpoint before, and raises its error."""
        self.wait()
        copy = to_memory(state)

        def write() -> None:
            try:
                self.store.write(step, copy)
            except BaseException as error:  # noqa: BLE001  raised where training waits for it
                self._error = error

        # no daemon: an interpreter that ends finishes the checkpoint
        self._thread = threading.Thread(target=write, name="checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Return when nothing is being written; raise what went wrong."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error


def to_memory(value: Any) -> Any:
    """`value` with every tensor copied to memory that training does not write to."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: to_memory(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(to_memory(item) for item in value)
    return value


def load_state(file: Path) -> State:
    """What a checkpoint holds: tensors and plain values, and nothing else is ever unpickled.

    DataError for a file that asks for more. On a machine with a GPU the file is mapped and not read: every tensor
    goes to the device anyway.
    """
    try:
        state: State = torch.load(file, map_location="cpu", weights_only=True, mmap=torch.cuda.is_available())
    except Exception as error:
        msg = (
            f"{file.name}: expected a checkpoint of tensors and plain values, found {type(error).__name__}: "
            f"{str(error).splitlines()[0][:200]}. Nothing else is loaded; remove the file"
        )
        raise DataError(msg) from error
    return state
