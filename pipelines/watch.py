"""Watch a folder or an object-store prefix, cheaply, and say once when a dataset in it is new or changed.

Only listings are compared (sizes, time stamps, ETags). A sub-folder counts when two listings, `settle_s` apart, are
equal. Files on a disk are then hashed before anything is started: the same bytes dropped again lead to nothing. The
run that is started looks again by itself (`pipelines.arrivals`), so a lost or doubled start does no harm.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from infra.errors import SegfoundryError, ServiceError
from infra.remote import is_remote
from infra.storage import digest_of, read_json, write_json
from pipelines import arrivals
from pipelines.workspace import Workspace

_FILE = "watch.json"
_NONE = ("", 0)
_LOG = logging.getLogger(__name__)
Start = Callable[[str, str], None]
"""Asked to start a run: (why, key); the same key twice is one run, for ever: a content that comes back has another."""


class Watcher:
    """What is known of the sub-folders of a watched place, kept in the workspace so that a restart forgets nothing."""

    def __init__(self, place: Workspace, watch: str, *, settle_s: float, start: Start) -> None:
        self.place, self.watch, self.settle_s = place, watch, settle_s
        self._start = start
        self._seen: dict[str, tuple[str, float]] = {}  # folder -> signature, and since when it is the same

    def look(self, now: float | None = None) -> list[str]:
        """List once; start one run for everything that is new, changed and at rest. Returns the folders it is for.

        `now` is a monotonic clock in seconds.
        """
        now = time.monotonic() if now is None else now
        known = self._known()
        due = []
        for one in arrivals.listing(self.watch):
            signature, since = self._seen.get(one.name, ("", now))
            if signature != one.signature:
                since = now
            self._seen[one.name] = (one.signature, since)
            # the clock of an object store may be another one; two equal listings need none
            rested = is_remote(self.watch) or one.at_rest(self.settle_s, time.time())
            if one.files and now - since >= self.settle_s and rested and known.get(one.name, _NONE)[0] != one.signature:
                due.append(one)
        reasons = {one.name: self._why(one.name) for one in due}
        wanted = [one for one in due if reasons[one.name]]
        if wanted:
            why = "; ".join(f"{one.name}: {reasons[one.name]}" for one in wanted)
            changes = [[one.name, one.signature, one.changed_at, known.get(one.name, _NONE)[1]] for one in wanted]
            self._start(why, digest_of(changes)[:32])
        if due:  # after the start: a kill in between asks for the same run again, by the same key
            new = {one.name: [one.signature, known.get(one.name, _NONE)[1] + 1] for one in due}
            write_json(self.place.state / _FILE, known | new)
        return [one.name for one in wanted]

    def _known(self) -> dict[str, Any]:
        """Folder -> [signature that was acted on last, how often it changed until then]."""
        path = self.place.state / _FILE
        value: dict[str, Any] = read_json(path) if path.is_file() else {}
        return {name: one if isinstance(one, list) else [one, 0] for name, one in value.items()}  # once: texts

    def _why(self, folder: str) -> str:
        if is_remote(self.watch):
            return "it changed"  # the store's ETags say so; the run that copies it compares the bytes
        try:
            dataset = arrivals.name_of(self.place, self.watch, folder)
            return arrivals.why_new(self.place, self.watch, folder, dataset)
        except ServiceError:
            raise
        except SegfoundryError as error:
            _LOG.warning("%s: not taken: %s", folder, error)
            return ""


def watch_until(stop: threading.Event, watcher: Watcher, every_s: float) -> None:
    """Look every `every_s` seconds; a place that does not answer is asked again, less and less often up to 10 min."""
    pause = every_s
    while not stop.wait(pause):
        try:
            watcher.look()
            pause = every_s
        except Exception as error:  # noqa: BLE001 - whatever it is, the next listing may work
            _LOG.warning("%s cannot be listed: %s", watcher.watch, error)
            pause = min(2 * pause, 600.0)
