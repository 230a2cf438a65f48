"""The record: which dataset versions each data version holds, and their tables as they were."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from infra import repository
from infra.dvc import INGEST_PREFIX
from infra.dvc_objects import Objects, open_objects
from infra.errors import ServiceError, UsageError
from pipelines.audits import purged
from pipelines.workspace import Workspace
from preprocessing.schema import DATASET_FILE, MANIFEST_FILE
from registry.audit import Manifests, Recorded, rows_of_case


@dataclass
class Record:
    """The data versions of one workspace, oldest first, and DVC's objects."""

    place: Workspace
    objects: Objects
    tags: list[str]
    _locks: dict[str, dict[str, Any]] = field(default_factory=dict)
    _told: dict[str, dict[str, Any]] = field(default_factory=dict)
    _manifests: dict[str, Recorded] = field(default_factory=dict)

    def lock(self, revision: str) -> dict[str, Any]:
        """The stages of `dvc.lock` at a revision of the workspace; empty where it had none."""
        if revision not in self._locks:
            try:
                text = repository.git(self.place.root, "show", f"{revision}:dvc.lock")
            except ServiceError:
                text = ""
            self._locks[revision] = (yaml.safe_load(text) or {}).get("stages", {})
        return self._locks[revision]

    def datasets(self, revision: str) -> dict[str, str]:
        """Dataset -> what DVC calls its folder at a revision."""
        return {
            name.removeprefix(INGEST_PREFIX): str(entry["outs"][0]["md5"])
            for name, entry in self.lock(revision).items()
            if name.startswith(INGEST_PREFIX) and entry.get("outs")
        }

    def all_datasets(self) -> list[str]:
        """Every dataset that some data version holds."""
        return sorted({name for tag in self.tags for name in self.datasets(tag)})

    def known(self, tag: str) -> None:
        """UsageError where `tag` is no data version."""
        if tag not in self.tags:
            msg = f"no data version {tag!r} in {self.place.root}; known: {', '.join(self.tags) or 'none yet'}"
            raise UsageError(msg)

    def files(self, dataset: str, revision: str) -> dict[str, str]:
        """File of a dataset version -> MD5 of its object."""
        return self.objects.listing(self.datasets(revision)[dataset], f"data/{dataset} at {revision}")

    def file(self, dataset: str, revision: str, name: str) -> Path:
        """A file of a dataset version; ServiceError where it is gone, which says of a purged version why."""
        md5 = self.files(dataset, revision).get(name)
        said = f"data/{dataset}/{name} at {revision}"
        if md5 is None:
            msg = f"{said}: the version was built without it"
            raise ServiceError(msg)
        try:
            return self.objects.fetched(md5, said)
        except ServiceError as error:
            if why := purged.why(self.place, revision, dataset):
                msg = f"{said}: {why}"
                raise ServiceError(msg) from error
            raise

    def has(self, dataset: str, revision: str, name: str) -> bool:
        """Whether a dataset version was built with a file of that name."""
        return name in self.files(dataset, revision)

    def told(self, dataset: str, revision: str) -> dict[str, Any]:
        """The `dataset.json` of a dataset version."""
        folder = self.datasets(revision)[dataset]
        if folder not in self._told:
            self._told[folder] = json.loads(self.file(dataset, revision, DATASET_FILE).read_bytes())
        return self._told[folder]

    def manifests(self) -> Manifests:
        """Data version -> dataset -> its manifest, to be searched; what did not change is searched once."""
        return {
            tag: {dataset: self._recorded(dataset, folder, tag) for dataset, folder in self.datasets(tag).items()}
            for tag in self.tags
        }

    def _recorded(self, dataset: str, folder: str, tag: str) -> Recorded:
        if folder not in self._manifests:

            @functools.lru_cache(maxsize=64)
            def find(names: tuple[str, ...]) -> Any:
                return rows_of_case(self.file(dataset, tag, MANIFEST_FILE), names)

            self._manifests[folder] = Recorded(str(self.told(dataset, tag)["manifest_digest"]), find)
        return self._manifests[folder]

    def state_commits(self) -> Iterator[str]:
        """Commits of the workspace that changed `dvc.lock`, newest first."""
        yield from repository.git(self.place.root, "log", "--format=%H", "--", "dvc.lock").splitlines()


@contextmanager
def open_record(place: Workspace) -> Iterator[Record]:
    """The record of a workspace."""
    with open_objects(place.root, place.state / "audit") as objects:
        yield Record(place, objects, repository.data_tags(place.root))
