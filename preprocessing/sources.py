"""Where a dataset comes from: the mirror, else its official address, else nowhere, and why."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar
from urllib.parse import unquote, urlsplit

import httpx

from infra.errors import SegfoundryError, UsageError
from infra.remote import compare_folder, is_remote, list_folders, needs_network, sync_folder
from infra.secrets import without_secrets
from infra.storage import write_json
from preprocessing.cards import DatasetCard, Official
from preprocessing.download import Timeouts, download, unpack
from preprocessing.inventory import IGNORED, read_inventory, scan, write_inventory

__all__ = ["Located", "forget", "locate", "locate_all", "read_inventory", "scan", "write_inventory"]

PROBE_SECONDS = 3.0
REMEMBER_SECONDS = 120.0
MEMORY_SECONDS = 3600.0


@dataclass(frozen=True)
class Located:
    """Where `dataset` was found. `path` is its folder here, None where there is none; `reason` says why so.

    `remote`: it would have to be fetched first, `bytes` in all, and nothing was to be fetched.
    """

    dataset: str
    kind: Literal["mirror", "official", "missing", "remote"]
    path: Path | None
    reason: str
    bytes: int = 0


def locate(card: DatasetCard, *, mirror: str | None, downloads: Path, offline: bool, max_bytes: int) -> Located:
    """`locate_all` for one dataset, with no bound on how long a download takes but its own."""
    return locate_all([card], mirror=mirror, downloads=downloads, offline=offline, max_bytes=max_bytes)[0]


def locate_all(
    cards: Sequence[DatasetCard],
    *,
    mirror: str | None,
    downloads: Path,
    offline: bool,
    max_bytes: int,
    patience_s: float | None = None,
    memory: Path | None = None,
    look_only: bool = False,
) -> list[Located]:
    """Find the files of `cards`, fetching them below `downloads` where that is needed and allowed.

    With `look_only` nothing is fetched or written: a remote mirror is listed, and official addresses are not asked.

    `mirror` is a folder or fsspec URL with one folder per dataset, named as the card in any case of
    letters; `max_bytes` bounds what may be downloaded for this dataset. Raises UsageError for a
    mirror that does not exist, ServiceError for a remote mirror that breaks off. An official address
    that fails makes the dataset missing: the reason says what happened.

    `patience_s` bounds each download from an official address. `memory` is a file that keeps for
    `MEMORY_SECONDS` which official addresses failed, and why: they are not asked again in that time,
    unless the mirror, the limit or the address changes. The mirror is looked at each time.
    """
    no_mirror = Located("", "missing", None, "no mirror is set (SEGFOUNDRY_MIRROR)")
    in_mirror = partial(_in_mirror, mirror=mirror or "", downloads=downloads, offline=offline, look_only=look_only)
    first = [in_mirror(card.name, max_bytes=max_bytes) if mirror else no_mirror for card in cards]
    left = [card for card, found in zip(cards, first, strict=True) if found.kind == "missing"]
    if memory is not None and offline:
        memory.unlink(missing_ok=True)  # who was offline and is back wants to know again
    failures = _Failures(memory, [mirror, max_bytes])
    answers = {card.name: _settled(card, downloads, offline, max_bytes) or failures.known(card) for card in left}
    for card in left if look_only else ():
        answers[card.name] = answers[card.name] or _to_download(card)
    ask = {card.name: (card, card.official) for card in left if card.official and answers[card.name] is None}
    _probe_together([official.url for _, official in ask.values()])
    for card, official in ask.values():
        answer = answers[card.name] = _fetched(card, official, downloads, max_bytes, patience_s)
        if answer.path is None:
            failures.note(card, answer.reason)
    return [
        _both(found, answers[card.name]) if found.kind == "missing" else found
        for card, found in zip(cards, first, strict=True)
    ]


def _both(mirror: Located, official: Located | None) -> Located:
    """The official answer, after the reason why the mirror was not used."""
    assert official is not None  # what was not settled was asked
    return replace(official, reason=f"{mirror.reason}; {official.reason}")


def _to_download(card: DatasetCard) -> Located:
    assert card.official is not None  # else it was settled
    size, url = card.official.bytes, card.official.url
    return Located(card.name, "remote", None, f"{_size(size) if size else 'it'} would be downloaded from {url}", size)


def forget() -> None:
    """Forget which hosts and remote mirrors were asked lately."""
    _probes.clear()
    _listings.clear()


def _in_mirror(name: str, *, mirror: str, downloads: Path, offline: bool, max_bytes: int, look_only: bool) -> Located:
    if is_remote(mirror):
        return _in_remote_mirror(name, mirror.rstrip("/"), downloads, offline, max_bytes, look_only)
    root = Path(unquote(urlsplit(mirror).path)) if "://" in mirror else Path(mirror).expanduser()
    if not root.is_dir():
        msg = f"SEGFOUNDRY_MIRROR={mirror}: expected a folder with one folder per dataset, found none. Fix or unset it"
        raise UsageError(msg)
    folder = _match(name, [each.name for each in root.iterdir() if each.is_dir()], mirror)
    if folder is None:
        return Located(name, "missing", None, f"the mirror has no folder {name}")
    if not any(each.is_file() and each.name not in IGNORED for each in (root / folder).rglob("*")):
        return Located(name, "missing", None, f"the mirror's folder {folder} is empty")
    return Located(name, "mirror", (root / folder).resolve(), "found in the mirror")


def _in_remote_mirror(
    name: str, mirror: str, downloads: Path, offline: bool, max_bytes: int, look_only: bool
) -> Located:
    cache = downloads / "mirror" / hashlib.sha256(mirror.encode()).hexdigest()[:12]
    if offline and needs_network(mirror):
        # a copy counts once its last file has come: the mark is written after the sync
        if _complete(cache / name).is_file():
            return Located(name, "mirror", cache / name, "offline: the local copy of the mirror is used")
        said = f"offline: {without_secrets(mirror)} is not asked and no local copy is complete"
        return Located(name, "missing", None, said)
    folder = _match(name, _listings.get(mirror, lambda: list_folders(mirror)), mirror)
    if folder is None:
        return Located(name, "missing", None, f"the mirror has no folder {name}")
    if look_only:
        return _looked(name, f"{mirror}/{folder}", cache / name)
    _complete(cache / name).unlink(missing_ok=True)
    done = sync_folder(f"{mirror}/{folder}", cache / name, max_bytes=max_bytes)
    if not done.files:
        return Located(name, "missing", None, f"the mirror's folder {folder} is empty")
    _complete(cache / name).touch()
    copied = f"{done.copied} of {done.files} files copied ({_size(done.bytes)})"
    said = f"found in the mirror {without_secrets(mirror)}: {copied}"
    return Located(name, "mirror", cache / name, said)


def _looked(name: str, url: str, copy: Path) -> Located:
    """What a listing says of a dataset in a remote mirror, held against its copy."""
    would = compare_folder(url, copy)
    if not would.files:
        return Located(name, "missing", None, f"the mirror's folder {url.rpartition('/')[2]} is empty")
    if would.copied or would.removed or not _complete(copy).is_file():
        told = f"{would.copied} of {would.files} files ({_size(would.bytes)}) would be copied, {would.removed} removed"
        return Located(name, "remote", None, f"{without_secrets(url)}: {told}", would.bytes)
    return Located(name, "mirror", copy, f"its copy is what {without_secrets(url)} holds")


def _complete(copy: Path) -> Path:
    return copy.with_name(f".{copy.name}.complete")


def _match(name: str, folders: list[str], mirror: str) -> str | None:
    """The folder whose name is `name` in any case of letters; the exact spelling wins."""
    if name in folders:
        return name
    same = sorted(each for each in folders if each.casefold() == name.casefold())
    if len(same) > 1:
        msg = f"SEGFOUNDRY_MIRROR={mirror}: expected one folder for {name}, found {', '.join(same)}. Rename all but one"
        raise UsageError(msg)
    return same[0] if same else None


def _settled(card: DatasetCard, downloads: Path, offline: bool, max_bytes: int) -> Located | None:
    """What the official address gives, as far as that is known without asking its host."""

    def missing(reason: str) -> Located:
        return Located(card.name, "missing", None, reason)

    official = card.official
    if official is None:
        return missing("no official address without a login")
    files = downloads / "official" / card.name / "files"
    if files.is_dir():
        return _inside(card.name, official, files, f"downloaded earlier from {official.url}")
    if offline:
        return missing(f"offline: {official.url} is not asked")
    if official.bytes > max_bytes:
        return missing(f"needs {_size(official.bytes)}, limit {_size(max_bytes)} ({official.url})")
    return None


def _fetched(
    card: DatasetCard, official: Official, downloads: Path, max_bytes: int, patience_s: float | None
) -> Located:
    """What the official address gives now."""

    def missing(reason: str) -> Located:
        return Located(card.name, "missing", None, reason)

    silent = _silence(official.url)
    if silent:
        return missing(silent)
    folder = downloads / "official" / card.name
    files = folder / "files"
    archive = folder / (Path(unquote(urlsplit(official.url).path)).name or "archive")
    timeouts = Timeouts(connect_s=PROBE_SECONDS)
    if patience_s is not None:
        timeouts = replace(timeouts, total_s=patience_s)
    try:
        got = download(
            official.url,
            archive,
            sha256=official.sha256,
            expected_bytes=official.bytes or None,
            max_bytes=max_bytes,
            timeouts=timeouts,
        )
        if official.unpack == "none":
            _alone(archive, files)
        else:
            unpack(archive, files, official.unpack)
            archive.unlink()  # its digest stays recorded; twice the disk buys nothing
    except SegfoundryError as failed:
        return missing(f"the official address failed: {failed}")
    checked = "SHA-256 as published" if official.sha256 else f"no SHA-256 is published, recorded {got.sha256}"
    return _inside(card.name, official, files, f"downloaded from {official.url} ({checked})")


def _inside(name: str, official: Official, files: Path, reason: str) -> Located:
    """The data's folder inside what was unpacked."""
    folder = files / official.root
    if not folder.is_dir():
        return Located(name, "missing", None, f"{official.url} has no folder {official.root!r} inside: check the card")
    return Located(name, "official", folder, reason)


def _alone(file: Path, folder: Path) -> None:
    """Make `folder` hold `file` alone; the rename says that it is complete."""
    temporary = folder.with_name(f".{folder.name}.alone")
    temporary.mkdir(exist_ok=True)
    file.replace(temporary / file.name)
    temporary.replace(folder)


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _silence(url: str) -> str:
    return _probes.get(_origin(url), lambda: _probe(url))


def _probe_together(urls: Sequence[str]) -> None:
    """Ask all hosts at the same time: without a network each of them costs `PROBE_SECONDS`."""
    origins = list({_origin(url): url for url in urls}.values())
    if len(origins) > 1:
        with ThreadPoolExecutor(len(origins)) as pool:
            list(pool.map(_silence, origins))


def _probe(url: str) -> str:
    """Why `url`'s host cannot be reached, or "" where it answers anything at all, within `PROBE_SECONDS`."""
    said: list[str] = []

    def ask() -> None:
        try:
            httpx.head(_origin(url), timeout=PROBE_SECONDS)
            said.append("")
        except (httpx.HTTPError, httpx.InvalidURL) as failed:
            said.append(f"{_origin(url)} cannot be reached ({type(failed).__name__}: {failed})")

    # Looking up a name has no timeout of its own: the thread is left behind where it hangs.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(PROBE_SECONDS)
    return said[0] if said else f"{_origin(url)} cannot be reached (no answer within {PROBE_SECONDS:.0f} s)"


def _size(count: int) -> str:
    for unit, factor in (("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000)):
        if count >= factor:
            return f"{count / factor:.1f}".removesuffix(".0") + f" {unit}"
    return f"{count} B"


class _Failures:
    """Which official addresses failed lately, kept in a file: the next demo need not wait for them again."""

    def __init__(self, path: Path | None, circumstances: list[Any]) -> None:
        self._path = path
        self._circumstances = circumstances
        kept: Any = {}
        if path is not None and path.is_file():
            kept = json.loads(path.read_text(encoding="utf-8"))
        same = kept.get("circumstances") == circumstances
        self._notes: dict[str, dict[str, Any]] = kept["failures"] if same else {}

    def known(self, card: DatasetCard) -> Located | None:
        """Why `card`'s official address failed in the last `MEMORY_SECONDS`; None where it should be asked."""
        note = self._notes.get(card.name)
        if note is None or card.official is None or note["url"] != card.official.url:
            return None
        age = time.time() - note["at"]
        if not 0 <= age < MEMORY_SECONDS:  # a clock that was set back forgets as well
            return None
        said = f"{note['reason']} (asked {age / 60:.0f} min ago; `segfoundry data fetch {card.name}` asks again)"
        return Located(card.name, "missing", None, said)

    def note(self, card: DatasetCard, reason: str) -> None:
        """Remember that `card`'s official address failed."""
        if self._path is None or card.official is None:
            return
        self._notes[card.name] = {"url": card.official.url, "at": time.time(), "reason": reason}
        write_json(self._path, {"circumstances": self._circumstances, "failures": self._notes})


T = TypeVar("T")


class _Remembered(Generic[T]):
    """Answers kept for two minutes: ten datasets on one dead host cost one probe, a long-lived server asks again."""

    def __init__(self) -> None:
        self._answers: dict[str, tuple[float, T]] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def get(self, key: str, ask: Callable[[], T]) -> T:
        """The answer for `key`, asked at most once in `REMEMBER_SECONDS`; different keys do not wait for each other."""
        with self._lock:
            own = self._locks.setdefault(key, threading.Lock())
        with own:
            kept = self._answers.get(key)
            if kept is None or time.monotonic() - kept[0] > REMEMBER_SECONDS:
                kept = (time.monotonic(), ask())
                self._answers[key] = kept
            return kept[1]

    def clear(self) -> None:
        """Forget all answers."""
        with self._lock:
            self._answers.clear()


_probes: _Remembered[str] = _Remembered()
_listings: _Remembered[list[str]] = _Remembered()
