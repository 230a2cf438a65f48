"""Datasets that arrive in a watched folder or object-store prefix, one sub-folder each.

A sub-folder is a dataset when it is named like a card, in any case of letters, or holds a `card.yaml` of its own.
It is taken when it has been at rest for a while, so that half a copy is not taken for a dataset, and when its bytes
are not those that the workspace has already. Files on a disk are read where they lie; those of an object store are
copied into the workspace, each once.

An object appears whole; that a prefix has all of its objects is told by its newest one being old, or by two listings
that are equal.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from infra.errors import DataError, SegfoundryError, ServiceError, UsageError
from infra.remote import RemoteFile, blocks_of, compare_folder, is_remote, list_files, sync_folder
from infra.secrets import without_secrets
from infra.settings import Settings, load_settings
from infra.storage import digest_of, sha256_bytes, write_bytes, write_json
from pipelines import events
from pipelines.workspace import Workspace

CARD = "card.yaml"
_UNFINISHED = (".part", ".partial", ".tmp", ".crdownload", ".filepart")
CLOCKS_S = 900.0
"""How far the clock of an object store may be from ours; S3 itself answers nobody whose clock is further off."""

Document = dict[str, Any]


@dataclass(frozen=True)
class Listed:
    """A sub-folder as a listing shows it: `signature` changes when any file does; `changed_at` is the latest change.

    `changed_at` is in seconds since 1970, by the clock of who keeps the files; 0 where an object store does not tell.
    `files` is 0 while something in it is named as unfinished. `objects`: of an object store, named below the folder.
    """

    name: str
    files: int
    signature: str
    changed_at: float
    objects: tuple[RemoteFile, ...] = field(default=(), repr=False)

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
    by_name: dict[str, list[RemoteFile]] = {}
    for each in list_files(url):
        name, _, rest = each.file.partition("/")
        if rest and not name.startswith("."):
            by_name.setdefault(name, []).append(replace(each, file=rest))
    return [_listed_objects(name, objects) for name, objects in sorted(by_name.items())]


def _listed_objects(name: str, objects: list[RemoteFile]) -> Listed:
    told = [each.changed_at for each in objects]
    signature = digest_of(sorted([each.file, each.bytes, each.version] for each in objects))
    finished = not any(each.file.endswith(_UNFINISHED) for each in objects)
    return Listed(name, len(objects) if finished else 0, signature, max(told) if all(told) else 0.0, tuple(objects))


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


def found(place: Workspace, watch: str, datasets: list[str], *, look_from: Workspace | None = None) -> list[Arrival]:
    """The sub-folders that are datasets and say something else than the workspace knows; the others are told as events.

    Of an object store, what is new is copied first. With `look_from`, the workspace that `place` is a scratch copy of,
    nothing is copied and nothing waited for: its copies are held against the listing.
    """
    arrivals: list[Arrival] = []
    folders: dict[str, list[str]] = {}
    listed, moving = resting(look_from or place, watch, patient=look_from is None)
    for name, reason in moving.items():
        events.emit("arrival", folder=name, taken=False, reason=reason)
    for one in listed:
        try:
            if look_from is not None and is_remote(watch):
                dataset, reason = _looked(place, look_from, watch, one)
            else:
                fetch(place, watch, one)
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
    return [one for one in arrivals if _is_taken(look_from or place, watch, one, folders[one.dataset])]


def resting(place: Workspace, watch: str, *, patient: bool = True) -> tuple[list[Listed], dict[str, str]]:
    """The sub-folders that are at rest, and by name why others are not taken.

    One of an object store that changed lately, or of which the store does not tell when, is listed again after
    `SEGFOUNDRY_WATCH_SETTLE_S`, unless its copy is what the listing says; without `patient` it is not at rest.
    """
    settle_s, now, listed = load_settings().watch_settle_s, time.time(), listing(watch)
    moving = {one.name: "it is still being written" for one in listed if not one.files}
    if not is_remote(watch):
        moving |= {one.name: "it is still being written" for one in listed if not one.at_rest(settle_s, now)}
        return [one for one in listed if one.name not in moving], moving
    doubtful = [
        one
        for one in listed
        if one.files
        and settle_s > 0
        and (not one.changed_at or not one.at_rest(settle_s + CLOCKS_S, now))
        and not _is_copied(place, watch, one)
    ]
    if doubtful and not patient:
        said = f"it changed lately: a run lists it twice, {settle_s:g} s apart, before it takes it"
        return [one for one in listed if one not in doubtful and one.files], moving | {
            one.name: said for one in doubtful
        }
    if doubtful:
        time.sleep(settle_s)
        again = {one.name: one.signature for one in listing(watch)}
        moving |= {one.name: "it is still being written" for one in doubtful if again.get(one.name) != one.signature}
    return [one for one in listed if one.name not in moving], moving


def _is_copied(place: Workspace, watch: str, one: Listed) -> bool:
    target = local_folder(place, watch, one.name)
    would = compare_folder(_address(watch, one.name), target, one.objects)
    return bool(would.files) and not (would.copied or would.removed or _half_copied(target).exists())


def _looked(scratch: Workspace, place: Workspace, watch: str, one: Listed) -> tuple[str, str]:
    """The dataset that a sub-folder of an object store is, and what it says that `place` does not know; no copy."""
    if _is_copied(place, watch, one):
        dataset = name_of(place, watch, one.name)
        return dataset, why_new(scratch, watch, one.name, dataset, copied_in=place)
    if any(each.file == CARD for each in one.objects):
        text = b"".join(blocks_of(f"{_address(watch, one.name)}/{CARD}"))
        write_bytes(local_folder(scratch, watch, one.name) / CARD, text)
    would = compare_folder(_address(watch, one.name), local_folder(place, watch, one.name), one.objects)
    return name_of(scratch, watch, one.name), f"{would.copied} of its {would.files} files would be copied"


def _is_taken(place: Workspace, watch: str, arrival: Arrival, folders: list[str]) -> bool:
    """Of several folders that are one dataset, that which it was made from before, or none.

    Each of the others would look like a change of that one.
    """
    known = place.roots().get(arrival.dataset, {}).get("path", "")
    if len(folders) == 1 or (known and Path(known) == local_folder(place, watch, arrival.listed.name)):
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


def fetch(place: Workspace, watch: str, one: Listed) -> None:
    """Copy what changed in a sub-folder of an object store, as it was listed; nothing for one on a disk."""
    if is_remote(watch):
        target = local_folder(place, watch, one.name)
        half = _half_copied(target)
        limit = load_settings().max_download_bytes
        if sum(each.bytes for each in one.objects) <= limit:  # a larger one is refused before anything is touched
            write_bytes(half, b"")
        sync_folder(_address(watch, one.name), target, max_bytes=limit, files=one.objects)
        half.unlink(missing_ok=True)


def _half_copied(target: Path) -> Path:
    """The mark of a copy that was begun and is not complete."""
    return target.with_name(f".{target.name}.copying")


def _address(watch: str, folder: str) -> str:
    return f"{watch.rstrip('/')}/{folder}"


def why_new(place: Workspace, watch: str, folder: str, dataset: str, *, copied_in: Workspace | None = None) -> str:
    """What a sub-folder says that the workspace does not know; "" where its bytes are those of a dataset it has.

    `copied_in`: the workspace that holds the copy of an object store's files, where it is not `place`.
    """
    from preprocessing.sources import scan

    files = scan(
        local_folder(copied_in or place, watch, folder),
        place.state / "hashes" / f"{dataset}.json",
        lambda name: f"{folder}: a file",
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


def take(place: Workspace, params: Document, settings: Settings, *, look_from: Workspace | None = None) -> Document:
    """`params` with the datasets that arrived, whose folders are remembered as their roots. Needs the run lock.

    `look_from` as in `found`; then what would have to be copied first has no path, and `plan.REMOTE` as its kind.
    DataError where a dataset's copy was cut off and could not be completed: nothing should be made of half of it.
    """
    from pipelines import plan

    if not settings.watch:
        return params
    where = without_secrets(settings.watch)
    arrived = found(place, settings.watch, params["datasets"], look_from=look_from)
    for one in arrived:
        here = look_from is None or not is_remote(settings.watch) or _is_copied(look_from, settings.watch, one.listed)
        folder = local_folder((look_from if here else None) or place, settings.watch, one.listed.name)
        if (folder / CARD).is_file():
            plan.register_card(place, folder / CARD)
        record = {"kind": plan.FOLDER, "path": str(folder), "reason": f"arrived in {where}: {one.reason}"}
        if not here:
            size = sum(each.bytes for each in one.listed.objects)
            record |= {"kind": plan.REMOTE, "path": "", "bytes": str(size), "reason": one.reason}
        write_json(place.state / "roots.json", place.roots() | {one.dataset: record})
        events.emit("arrival", folder=one.listed.name, taken=True, dataset=one.dataset, reason=one.reason)
    for name, record in place.roots().items():
        if name in params["datasets"] and record["path"] and _half_copied(Path(record["path"])).exists():
            msg = (
                f"{name}: expected a whole copy of what arrived in {where}, found one that was cut off, and its source "
                "is not at rest. Run again once its upload is complete"
            )
            raise DataError(msg)
    new = [one.dataset for one in arrived if one.new]
    return {**params, "datasets": [*params["datasets"], *dict.fromkeys(new)]} if new else params
