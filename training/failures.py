"""What to do when a worker fails: stop where the run itself is wrong, go on where a machine was lost. Knows no Ray.

A wrong parameter, a damaged shard, a diverged loss or a bug fails the same way again, so it is raised at once with
its own words. A killed worker or a node that is gone says nothing about the run: it goes on from the last
checkpoint, as long as it gets on. Only losses without a new checkpoint in between count against the limit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infra.errors import SegfoundryError, ServiceError

MOST_WITHOUT_PROGRESS = 3
# What the ranks that are left say when one is gone; torch has a class for some backends only.
_PEER_GONE = (
    "connection closed by peer",
    "connection reset by peer",
    "connection refused",
    "broken pipe",
    "gloo",
    "nccl",
    "socket timeout",
    "store may be",
    "failed to recv",
)
_DISTRIBUTED_CLASSES = ("DistBackendError", "DistNetworkError", "DistStoreError", "DistError")


def is_loss(error: BaseException) -> bool:
    """Whether an error of one worker is a sign of a lost worker, node, link or service, and not of a wrong run."""
    if isinstance(error, SegfoundryError):
        return isinstance(error, ServiceError)
    if type(error).__module__.split(".")[0] == "ray" or type(error).__name__ in _DISTRIBUTED_CLASSES:
        return True
    if isinstance(error, (ConnectionError, EOFError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(sign in text for sign in _PEER_GONE)


def verdict(failures: Mapping[int, BaseException]) -> BaseException | None:
    """The error that stops the run, or None where it should go on.

    Args:
        failures: by rank. Where one rank's run is wrong, the others often fail for want of it: the wrong one counts,
            and of several a `SegfoundryError`, which says what to do.
    """
    wrong = [error for _, error in sorted(failures.items()) if not is_loss(error)]
    told = [error for error in wrong if isinstance(error, SegfoundryError)]
    return (told or wrong or [None])[0]


class Losses:
    """Counts and records the losses of a run; `record` raises ServiceError when it does not get on any more."""

    def __init__(self, file: Path, most_without_progress: int = MOST_WITHOUT_PROGRESS) -> None:
        self._file, self._most = file, most_without_progress
        self._step: int | None = None
        self._without_progress = 0
        self.count = 0

    def record(self, failures: Mapping[int, BaseException], step: int | None, workers: int) -> None:
        """Note a loss.

        Args:
            failures: what each rank said.
            step: of the checkpoint that the run goes on from; None: from the beginning.
            workers: how many there were.
        """
        if self.count and step != self._step:
            self._without_progress = 0
        self._step = step
        self._without_progress += 1
        self.count += 1
        said = {str(rank): _short(error) for rank, error in sorted(failures.items())}
        line: dict[str, Any] = {"loss": self.count, "goes_on_from": step or 0, "workers": workers, "ranks": said}
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(line, sort_keys=True) + "\n")
        if self._without_progress > self._most:
            msg = (
                f"training: expected workers that live from one checkpoint to the next, lost some "
                f"{self._without_progress} times in a row at step {step or 0}: {'; '.join(said.values())}. "
                f"{self._file.name} in the run's folder has all losses; a worker that is killed again and again is "
                "mostly out of memory: lower the batch or the number of workers of a machine"
            )
            raise ServiceError(msg)


def _short(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300] if lines else ''}"
