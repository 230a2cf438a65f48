"""Datasets that arrive in a watched folder or object-store prefix, one sub-folder each.

A sub-folder is a dataset when it is named like a card, in any case of letters, or holds a `card.yaml` of its own.
It is taken when it has been at rest for a while, so that half a copy is not taken for a dataset, and when its bytes
are not those that the workspace has already. Files on a disk are read where they lie; those of an object store are
copied into the workspace, each once.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from infra.errors import SegfoundryError, ServiceError, UsageError
from infra.remote import is_remote, list_files, sync_folder
from infra.secrets import without_secrets
from infra.settings import Settings, load_settings
from infra.storage import digest_of, sha256_bytes, write_json
from pipelines import events
from pipelines.workspace import Workspace

CARD = "card.yaml"
_UNFINISHED = (".part", ".partial", ".tmp", ".crdownload", ".filepart")

Document = dict[str, Any]


@dataclass(frozen=True)
class Listed:
    """A sub-folder as a listing shows it: `signature` changes when any file does; `changed_at` is the latest change.

    `changed_at` is in seconds since 1970, 0 where the store does not tell.
    """

    name: str
    files: int
    signature: str
    changed_at: float

    def at_rest(self, settle_s: float, now: float) -> bool:
        """Whether nothing changed in it for `settle_s`."""
        return self.files > 0 and now - self.changed_at >= settle_s


@dataclass(frozen=True)
class Arrival:
    """A sub-folder that is a dataset: `new` where params.yaml does not list it yet."""

    dataset: str
    listed: Listed
    new: bool
    reason: str


def listing(watch: str) -> list[Listed]:
    """The sub-folders of a watched place, by name: sizes and time stamps or ETags alone, no file is opened.

    UsageError where the place does not exist, ServiceError where the store does not answer.
    """
    return _listed_remote(watch) if is_remote(watch) else _listed_here(Path(watch))


def _listed_here(root: Path) -> list[Listed]:
    if not root.is_dir():
        msg = f"SEGFOUNDRY_WATCH={root}: expected a folder with one folder per dataset, found none. Make it or unset it"
        raise UsageError(msg)
    found = []
    for folder in sorted(root.iterdir()):
        if folder.is_dir() and not folder.name.startswith("."):
            found.append(_listed_folder(folder))
    return found


def _listed_folder(folder: Path) -> Listed:
    entries, latest, unfinished = [], folder.stat().st_ctime, False
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place, name)
            try:
                told = path.stat()
            except OSError:  # gone between the listing and now: it is being worked on
                return Listed(folder.name, 0, "", time.time())
            unfinished = unfinished or name.endswith(_UNFINISHED)
            entries.append([path.relative_to(folder).as_posix(), told.st_size, told.st_mtime_ns, told.st_ino])
            latest = max(latest, told.st_ctime)  # a copy keeps the old mtime; the change time is of its arrival
    if unfinished:
        return Listed(folder.name, 0, "", time.time())
    return Listed(folder.name, len(entries), digest_of(sorted(entries)), latest)


def _listed_remote(url: str) -> list[Listed]:
    by_name: dict[str, list[list[Any]]] = {}
    for each in list_files(url):
        name, _, rest = each.file.partition("/")
        if rest and not name.startswith("."):
            by_name.setdefault(name, []).append([rest, each.bytes, each.version])
    # an object appears whole; when a prefix has all of its objects only two equal listings tell (`pipelines.watch`)
    return [Listed(name, len(entries), digest_of(sorted(entries)), 0.0) for name, entries in sorted(by_name.items())]


def name_of(place: Workspace, watch: str, folder: str) -> str:
    """The dataset that a sub-folder is; UsageError that says what is missing where it is none. Nothing is written."""
    from pipelines import plan
    from preprocessing.yaml_card import read_card

    own = local_folder(place, watch, folder) / CARD
    if own.is_file():
        return str(read_card(own).card.name)
    try:
        return plan.known_dataset(folder, place.cards)
    except UsageError as error:
        msg = f"{folder}: no dataset: {error}. Rename it, or put a {CARD} into it (segfoundry data new-card)"
        raise UsageError(msg) from error


def found(place: Workspace, watch: str, datasets: list[str]) -> list[Arrival]:
    """The sub-folders that are datasets and say something else than the workspace knows; the others are told as events.

    Of an object store, what is new is copied first.
    """
    settings, now = load_settings(), time.time()
    arrivals: list[Arrival] = []
    folders: dict[str, list[str]] = {}
    for one in listing(watch):
        if not one.at_rest(settings.watch_settle_s, now):
            events.emit("arrival", folder=one.name, taken=False, reason="it is still being written")
            continue
        try:
            fetch(place, watch, one.name)
            dataset = name_of(place, watch, one.name)
            reason = why_new(place, watch, one.name, dataset)
        except SegfoundryError as error:
            if isinstance(error, ServiceError):
                raise
            events.emit("arrival", folder=one.name, taken=False, reason=str(error))
            continue
        folders.setdefault(dataset, []).append(one.name)
        if reason:
            arrivals.append(Arrival(dataset, one, dataset not in datasets, reason))
    return [one for one in arrivals if _is_sole(one, folders[one.dataset])]


def _is_sole(arrival: Arrival, folders: list[str]) -> bool:
    """Of several folders that are one dataset none is taken: each would look like a change of the other."""
    if len(folders) == 1:
        return True
    reason = f"{arrival.dataset} is also {', '.join(name for name in folders if name != arrival.listed.name)}: keep one"
    events.emit("arrival", folder=arrival.listed.name, taken=False, reason=reason)
    return False


def copies(place: Workspace, watch: str) -> Path:
    """Where the sub-folders of a remote watched place are copied to."""
    return place.state / "arrived" / sha256_bytes(watch.encode())[:12]


def local_folder(place: Workspace, watch: str, folder: str) -> Path:
    """Where the files of a sub-folder are on this machine; of an object store, once `fetch` brought them."""
    return copies(place, watch) / PurePosixPath(folder).name if is_remote(watch) else Path(watch, folder).resolve()


def fetch(place: Workspace, watch: str, folder: str) -> None:
    """Copy what changed in a sub-folder of an object store; nothing for one on a disk."""
    if is_remote(watch):
        target = local_folder(place, watch, folder)
        sync_folder(f"{watch.rstrip('/')}/{folder}", target, max_bytes=load_settings().max_download_bytes)


def why_new(place: Workspace, watch: str, folder: str, dataset: str) -> str:
    """What a sub-folder says that the workspace does not know; "" where its bytes are those of a dataset it has."""
    from preprocessing.sources import scan

    files = scan(
        local_folder(place, watch, folder), place.state / "hashes" / f"{dataset}.json", lambda name: f"{folder}: a file"
    )
    content = Counter(one["sha256"] for one in files)
    known = inventories(place)
    if dataset in known:
        return "" if known[dataset] == content else "its files changed"
    same = [name for name, one in known.items() if one == content]
    if same:
        events.emit("arrival", folder=folder, taken=False, reason=f"it holds the same bytes as {same[0]}")
        return ""
    return "a new dataset"


def inventories(place: Workspace) -> dict[str, Counter[str]]:
    """Dataset -> SHA-256 of its raw files as the workspace knows them, with how often each occurs."""
    from preprocessing.sources import read_inventory

    return {
        path.stem: Counter(one["sha256"] for one in read_inventory(path))
        for path in sorted((place.root / "sources").glob("*.jsonl"))
    }


def take(place: Workspace, params: Document, settings: Settings) -> Document:
    """`params` with the datasets that arrived, whose folders are remembered as their roots. Needs the run lock."""
    from pipelines import plan

    if not settings.watch:
        return params
    arrived = found(place, settings.watch, params["datasets"])
    for one in arrived:
        folder = local_folder(place, settings.watch, one.listed.name)
        if (folder / CARD).is_file():
            plan.register_card(place, folder / CARD)
        where = without_secrets(settings.watch)
        record = {"kind": plan.FOLDER, "path": str(folder), "reason": f"arrived in {where}: {one.reason}"}
        write_json(place.state / "roots.json", place.roots() | {one.dataset: record})
        events.emit("arrival", folder=one.listed.name, taken=True, dataset=one.dataset, reason=one.reason)
    new = [one.dataset for one in arrived if one.new]
    return {**params, "datasets": [*params["datasets"], *dict.fromkeys(new)]} if new else params
