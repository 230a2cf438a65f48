"""What DVC keeps by MD5: its cache and its remotes, asked for single objects.

`dvc.api` opens the repository anew for each file and reads it whole; an audit asks for tables of hundreds of versions
and for a few rows of each. Every object is held against its MD5 before it is used: DVC looks at none that it has.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.errors import ServiceError
from infra.remote_errors import store_error
from infra.storage import atomic_path, read_json, write_json

CACHE = "cache"  # where an object is, beside names of remotes
_FETCHED = "objects"
_VERIFIED = "verified.json"


@dataclass
class Objects:
    """The objects of one workspace. `state` is a machine-local folder for what was fetched and verified."""

    root: Path
    cache: Path
    state: Path
    remotes: dict[str, Any] = field(default_factory=dict)  # name -> DVC's object database
    _known: dict[str, list[int]] | None = None
    _listed: dict[str, dict[str, str]] = field(default_factory=dict)

    def path(self, md5: str) -> Path:
        """Where an object lies in the cache, whether it is there or not."""
        return self.cache / md5[:2] / md5[2:]

    def fetched(self, md5: str, said: str = "") -> Path:
        """A local, verified copy of an object; ServiceError, which calls it `said`, where there is none."""
        path = self.path(md5)
        if not path.is_file():
            path = self.state / _FETCHED / md5
            if not path.is_file():
                self._fetch(md5, path, said or md5)
        self._verify(path, md5, said or md5)
        return path

    def listing(self, md5: str, said: str = "") -> dict[str, str]:
        """File below a folder -> its MD5; `md5` is that of `dvc.lock`, which ends in ".dir"."""
        if md5 not in self._listed:
            entries = json.loads(self.fetched(md5, said).read_bytes())
            self._listed[md5] = {str(one["relpath"]): str(one["md5"]) for one in entries}
        return self._listed[md5]

    def where(self, md5s: Iterable[str], *, remotes: bool = True) -> dict[str, list[str]]:
        """Object -> "cache" and the names of remotes that hold it; ServiceError where a remote does not answer."""
        wanted = sorted(set(md5s))
        found = {md5: [CACHE] if self.path(md5).is_file() else [] for md5 in wanted}
        for name, database in self.remotes.items() if remotes else ():
            for md5 in self._there(name, database, wanted):
                found[md5].append(name)
        return found

    def remove(self, md5: str, place: str) -> None:
        """Remove an object from the cache or a remote for good; nothing where it is not there."""
        if place == CACHE:
            for path in (self.path(md5), self.state / _FETCHED / md5):
                with contextlib.suppress(FileNotFoundError):
                    os.chmod(path.parent, stat.S_IMODE(path.parent.stat().st_mode) | stat.S_IWUSR)
                    path.unlink()
            return
        database = self.remotes[place]
        try:
            database.fs.remove(database.oid_to_path(md5))
        except FileNotFoundError:
            pass
        except Exception as error:
            raise store_error(f"the DVC remote {place}", error) from error

    def _there(self, name: str, database: Any, md5s: list[str]) -> list[str]:
        try:
            return [md5 for md5 in md5s if database.fs.exists(database.oid_to_path(md5))]
        except Exception as error:  # each kind of store has errors of its own
            raise store_error(f"the DVC remote {name}", error) from error

    def _fetch(self, md5: str, target: Path, said: str) -> None:
        for name, database in self.remotes.items():
            if self._there(name, database, [md5]):
                with atomic_path(target) as temporary:
                    try:
                        database.fs.get_file(database.oid_to_path(md5), str(temporary))
                    except Exception as error:
                        raise store_error(f"the DVC remote {name}", error) from error
                return
        asked = ", ".join(("the cache", *(f"the remote {name}" for name in self.remotes)))
        msg = f"{said}: expected object {md5} in {asked}, found it nowhere. If the cache was cleaned: dvc pull"
        raise ServiceError(msg)

    def _verify(self, path: Path, md5: str, said: str) -> None:
        """Once for each state of a file: a manifest of ten million rows takes a second to hash, and never changes."""
        if self._known is None:
            file = self.state / _VERIFIED
            self._known = dict(read_json(file)) if file.is_file() else {}
        found = path.stat()
        seen = [found.st_ino, found.st_size, found.st_mtime_ns]
        if self._known.get(md5) == seen:
            return
        with path.open("rb") as handle:
            digest = hashlib.file_digest(handle, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if digest != md5.removesuffix(".dir"):
            msg = (
                f"{said}: expected the MD5 {md5} of dvc.lock, found {digest}: DVC's cache or remote is damaged. "
                f"Remove {path} and fetch it from a sound remote: dvc pull"
            )
            raise ServiceError(msg)
        self._known[md5] = seen

    def keep_verified(self) -> None:
        """Remember on disk which files were held against their MD5."""
        if self._known:
            write_json(self.state / _VERIFIED, self._known)


@contextlib.contextmanager
def open_objects(root: Path, state: Path) -> Iterator[Objects]:
    """The objects of the workspace at `root`; ServiceError where DVC cannot open it."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(root)) as repo:
            names = [str(name) for name in repo.config["remote"]]
            remotes = {name: repo.cloud.get_remote_odb(name) for name in names}
            opened = Objects(root, Path(repo.cache.local.path), state, remotes)
            try:
                yield opened
            finally:
                opened.keep_verified()
    except DvcException as error:
        msg = f"DVC failed in {root}: {error}"
        raise ServiceError(msg) from error
