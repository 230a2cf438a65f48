"""Ray: one head a run, and a map over cases that hands results on as they finish.

Ray is imported when a session starts, never before: most commands do not need it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from infra.errors import SegfoundryError, ServiceError
from infra.storage import write_text

if TYPE_CHECKING:
    from infra.settings import Settings  # its packages are not on every machine that evaluates

Item = TypeVar("Item")
Result = TypeVar("Result")

_ENVIRONMENT = {
    # a thread that is late must not start a second head of Ray's own choice after ours was shut down
    "RAY_ENABLE_AUTO_CONNECT": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # with the default of 2 s every report of a worker costs 2 s
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_TRAIN_V2_ENABLED": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
_TEMPORARY_RECORD = "ray-temporary-folder"
_TASK_RETRIES = 2
_TASK_S = 0.1  # how long a task of several items should take: Ray adds one or two milliseconds to each
_MOST_ITEMS = 32  # a slow item may hide behind quick ones; and so many results are in memory at once


def prepare_environment() -> None:
    """Set what Ray reads at import; what the user has set stays."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


@contextlib.contextmanager
def ray_session(state: Path, settings: Settings | None = None) -> Iterator[None]:
    """A Ray session for the block: attached to `RAY_ADDRESS` where that is set, else a head of our own.

    Our own head lives in a new temporary folder, so that neither another run's head nor a stale
    address of a killed one is ever met. `state` is the workspace's `.segfoundry`, which remembers
    that folder: `remove_stale_temporary` clears it after a kill. Inside a session, this adds nothing.
    """
    prepare_environment()
    import ray

    if ray.is_initialized():
        yield
        return
    from infra.settings import load_settings

    settings = settings or load_settings()
    address = os.environ.get("RAY_ADDRESS", "")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    temporary: Path | None = None
    try:
        if address:
            ray.init(address=address, **quiet)
        else:
            remove_stale_temporary(state)
            temporary = Path(tempfile.mkdtemp(prefix="sf-"))  # short: Unix sockets in it have 107 characters
            write_text(state / _TEMPORARY_RECORD, str(temporary))
            ray.init(
                num_cpus=settings.cpus,
                include_dashboard=False,
                object_store_memory=settings.object_store_bytes,
                _temp_dir=str(temporary),
                **quiet,
            )
    except (ConnectionError, RuntimeError, ValueError, OSError, TimeoutError) as error:
        where = f"at RAY_ADDRESS={address}" if address else f"on this machine ({settings.cpus} CPUs)"
        msg = f"Ray does not start {where}: {error}. `segfoundry doctor` says more."
        raise ServiceError(msg) from error
    try:
        yield
    finally:
        ray.shutdown()
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
            (state / _TEMPORARY_RECORD).unlink(missing_ok=True)


def remove_stale_temporary(state: Path) -> None:
    """Remove the temporary folder of a Ray head that a killed run left; its processes are reaped before."""
    record = state / _TEMPORARY_RECORD
    if not record.is_file():
        return
    folder = Path(record.read_text(encoding="utf-8"))
    if folder.name.startswith("sf-") and folder.parent == Path(tempfile.gettempdir()):
        shutil.rmtree(folder, ignore_errors=True)
    record.unlink(missing_ok=True)


def ray_map(
    function: Callable[[Item], Result], items: Iterable[Item], *, max_in_flight: int | None = None
) -> Iterator[Result]:
    """Apply `function` to each item in Ray workers; yield results as they finish, in any order.

    Quick items travel several in one task, so that Ray's milliseconds a task are shared; how many follows
    from how long the items before them took. At most `max_in_flight` items are out at a time (default: as many
    as CPUs of the cluster + 1 tasks carry), so neither a long dataset nor a slow reader of the results fills
    memory. A worker that dies is replaced and its items are tried again, each alone; after the last retry a
    `ServiceError` names the item. An error raised by `function` is raised here as it was.

    A machine that has no Ray does it all here, one item after the other.
    """
    try:
        import ray
    except ModuleNotFoundError:
        yield from map(function, items)
        return
    from ray.exceptions import RayError, RayTaskError

    if not ray.is_initialized():
        msg = "ray_map needs a Ray session: call it inside `ray_session`"
        raise ServiceError(msg)
    tasks = int(ray.cluster_resources().get("CPU", 1)) + 1
    most = max_in_flight or tasks * _MOST_ITEMS
    # SPREAD has no meaning on one node and keeps nodes of a cluster evenly busy
    remote = ray.remote(num_cpus=1, scheduling_strategy="SPREAD")(_apply_all)
    shared = ray.put(function)
    out: dict[Any, list[Item]] = {}
    waiting: deque[Item] = deque()  # items of a batch whose worker died
    source = iter(items)
    exhausted = False
    size = 1
    try:
        while True:
            while (waiting or not exhausted) and len(out) < (max_in_flight or tasks):
                room = most - sum(map(len, out.values()))
                if room < 1:
                    break
                batch = [waiting.popleft()] if waiting else list(islice(source, min(size, room)))
                if batch:
                    # a batch is not retried as it is: which of its items is the deadly one must come out
                    retries = _TASK_RETRIES if len(batch) == 1 else 0
                    out[remote.options(max_retries=retries).remote(shared, batch)] = batch
                else:
                    exhausted = True
            if not out:
                return
            done, _ = ray.wait(list(out), num_returns=1)
            for reference in done:
                batch = out.pop(reference)
                try:
                    results, seconds = ray.get(reference)
                except RayTaskError as error:
                    cause = error.cause
                    if isinstance(cause, SegfoundryError):
                        raise cause from None
                    raise
                except RayError as error:
                    if len(batch) > 1:
                        waiting.extend(batch)
                        continue
                    msg = f"a worker died {_TASK_RETRIES + 1} times on {str(batch[0])[:200]}: {error}"
                    raise ServiceError(msg) from error
                size = _next_batch(size, len(batch), seconds)
                yield from results
    finally:
        for reference in out:
            ray.cancel(reference, force=False)


def _next_batch(size: int, items: int, seconds: float) -> int:
    """How many items the next task gets, from how long `items` took: about `_TASK_S`, at most twice as many as now."""
    fitting = int(_TASK_S * items / max(seconds, 1e-6))
    return max(1, min(fitting, 2 * size, _MOST_ITEMS))


def cluster_resources() -> dict[str, float]:
    """What the present Ray session has: CPU, GPU, memory, …"""
    import ray

    return dict(ray.cluster_resources())


def _apply_all(function: Callable[[Any], Any], items: list[Any]) -> tuple[list[Any], float]:
    """Results of the items, and the seconds that they took."""
    started = time.monotonic()
    return [function(item) for item in items], time.monotonic() - started
