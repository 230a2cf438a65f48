"""A workspace under git + DVC, through DVC's own Python API.

`dvc.yaml` is the one description of what makes what. The graph, what is stale, and what is written
to `dvc.lock` all come from DVC, so the flow and `dvc repro` by hand cannot disagree.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from infra import repository
from infra.errors import ServiceError, UsageError
from infra.storage import digest_of, staged_folder, write_bytes, write_text

os.environ.setdefault("DVC_NO_ANALYTICS", "1")

STATE_FOLDER = ".segfoundry"
_DIGEST_LINE = "data digest: "  # of a tag's message
INGEST_PREFIX = "ingest@"
VERSIONED = [
    "dvc.yaml",
    "params.yaml",
    "dvc.lock",
    "sources",
    "recipes",
    "cards",
    "withdrawn.jsonl",
    "retrain_requests.jsonl",
    "purged.jsonl",
    ".gitignore",
    ".dvcignore",
    ".dvc/config",
    ".dvc/.gitignore",
]
_GOOD_LOCK = "dvc.lock.good"
# The folders are ignored here once, so that DVC writes no .gitignore into them: that file would be part of `data`.
_GITIGNORE = (
    "/.segfoundry/\n/data/\n/models/\n/evaluation/\n/reports/\n/mlflow.db*\n/mlartifacts/\n/exports/\n.*part-tmp\n"
)
_DVCIGNORE = (
    "# temporary files of atomic writes, and what a killed run left\n.*.part-tmp\n.gitignore\n/data/.*\n/models/.*\n"
)
_CONFIG = {
    "core": {"analytics": "false", "check_update": "false", "autostage": "false"},
    "cache": {"type": "hardlink,symlink"},  # no second copy of every shard
}


@dataclass(frozen=True)
class DataVersion:
    """A git commit of `dvc.lock` with a tag."""

    tag: str
    commit: str
    digest: str
    created: bool


def prepare_workspace(root: Path, project: Path, params: dict[str, Any] | None = None) -> None:
    """Make `root` a git + DVC repository that holds the project's `dvc.yaml`, byte for byte.

    `params.yaml` is copied from the project where the workspace has none. With `params`, it is
    written with those values when they differ from what it says. Safe to call again, also after a kill.
    """
    root.mkdir(parents=True, exist_ok=True)
    state = root / STATE_FOLDER
    state.mkdir(exist_ok=True)
    repository.prepare_git(root)
    repository.remove_dead_locks(root)
    _write_if_other(root / ".gitignore", _GITIGNORE.encode())
    _write_if_other(root / ".dvcignore", _DVCIGNORE.encode())
    _write_if_other(root / "dvc.yaml", (project / "dvc.yaml").read_bytes())
    if not (root / "params.yaml").exists():
        write_bytes(root / "params.yaml", (project / "params.yaml").read_bytes())
    if params is not None and yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8")) != params:
        write_text(root / "params.yaml", yaml.safe_dump(params, sort_keys=False, allow_unicode=True))
    _prepare_dvc(root)
    _heal_dvc(root)


def _write_if_other(path: Path, payload: bytes) -> None:
    if not path.exists() or path.read_bytes() != payload:
        write_bytes(path, payload)


def _ini(sections: dict[str, dict[str, str]]) -> bytes:
    lines = []
    for section, values in sections.items():
        lines.append(f"[{section}]")
        lines += [f"    {key} = {value}" for key, value in values.items()]
    return ("\n".join(lines) + "\n").encode()


def _prepare_dvc(root: Path) -> None:
    # Half an `init` (killed) has no config yet; files are few and known, so they are written one by one.
    folder = root / ".dvc"
    (folder / "tmp").mkdir(parents=True, exist_ok=True)
    _write_if_other(folder / ".gitignore", b"/config.local\n/tmp\n/cache\n")
    if not (folder / "config").exists():
        write_bytes(folder / "config", _ini(_CONFIG))
    # DVC's hash cache of this workspace stays inside it, and goes away with it
    local = {"core": {"site_cache_dir": str(root / STATE_FOLDER / "dvc")}}
    _write_if_other(folder / "config.local", _ini(local))


def _heal_dvc(root: Path) -> None:
    # DVC's own locks are flocks, which end with their process; its rwlock file drops dead ids itself
    # unless the kill tore the JSON. dvc.lock is rewritten in place and can be torn as well.
    rwlock = root / ".dvc" / "tmp" / "rwlock"
    if rwlock.exists():
        try:
            json.loads(rwlock.read_text(encoding="utf-8"))
        except ValueError:
            rwlock.unlink()
    lock, good = root / "dvc.lock", root / STATE_FOLDER / _GOOD_LOCK
    if lock.exists() and not _reads_as_lock(lock):
        if good.exists():
            write_bytes(lock, good.read_bytes())
        else:
            lock.unlink()


def _reads_as_lock(path: Path) -> bool:
    # DVC's own schema: torn at the end of a line, the file is still YAML, and DVC refuses it.
    from dvc.dvcfile import Lockfile
    from dvc.exceptions import DvcException

    try:
        value = Lockfile.validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError, DvcException):
        return False
    return isinstance(value, dict) and isinstance(value.get("stages"), dict)


class DataRepo:
    """The DVC side of one workspace. Not for several threads at once."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextlib.contextmanager
    def _open(self) -> Iterator[Any]:
        from dvc.exceptions import DvcException
        from dvc.repo import Repo

        logging.getLogger("dvc").setLevel(logging.ERROR)  # also hides its progress bars
        previous = Path.cwd()
        os.chdir(self.root)  # DVC resolves stage names against the current folder
        try:
            with Repo(str(self.root)) as repo:
                yield repo
        except DvcException as error:
            msg = f"DVC failed in {self.root}: {error}"
            raise ServiceError(msg) from error
        finally:
            os.chdir(previous)

    def plan(self) -> list[str]:
        """All stage names in the order in which `dvc repro` runs them."""
        from dvc.repo.reproduce import get_active_graph, plan_repro

        with self._open() as repo:
            stages = repo.stage.collect("dvc.yaml")
            return [stage.addressing for stage in plan_repro(get_active_graph(repo.index.graph), stages)]

    def generations(self) -> list[list[str]]:
        """Stage names by topological generation; those of one generation may run at the same time.

        Within a generation, in the order of `plan`.
        """
        import networkx

        order = {name: index for index, name in enumerate(self.plan())}
        with self._open() as repo:
            # DVC's edges go from a stage to what it needs
            graph = repo.index.graph.reverse()
            layers = [[stage.addressing for stage in layer] for layer in networkx.topological_generations(graph)]
        return [sorted((name for name in layer if name in order), key=order.__getitem__) for layer in layers]

    def changed(self) -> dict[str, Any]:
        """Stage -> what DVC says changed, for the stages that are out of date by themselves."""
        with self._open() as repo:
            value: dict[str, Any] = repo.status()
        return value

    def stale(self) -> list[str]:
        """Stages that `dvc repro` would run or check: the changed ones and all that need them, in order."""
        changed = set(self.changed())
        if not changed:
            return []
        with self._open() as repo:
            graph = repo.index.graph
            names = {stage: stage.addressing for stage in graph}
            import networkx

            stale = {
                name
                for stage, name in names.items()
                if name in changed or any(names[other] in changed for other in networkx.descendants(graph, stage))
            }
        return [name for name in self.plan() if name in stale]

    def needed(self, targets: Iterable[str]) -> list[str]:
        """`targets` and every stage that they need, in the order of `plan`; an unknown one is a `UsageError`."""
        import networkx

        plan = self.plan()
        wanted = set(targets)
        if unknown := sorted(wanted - set(plan)):
            msg = f"{self.root / 'dvc.yaml'}: no stage {', '.join(unknown)}; expected one of {', '.join(plan)}"
            raise UsageError(msg)
        with self._open() as repo:
            graph = repo.index.graph
            for stage in list(graph):
                if stage.addressing in wanted:
                    wanted |= {other.addressing for other in networkx.descendants(graph, stage)}
        return [name for name in plan if name in wanted]

    def commit_stage(self, name: str) -> None:
        """Record what `name` made: into the cache and `dvc.lock`, exactly as `dvc repro` does after its command."""
        with self._open() as repo:
            repo.commit(name, force=True)
        self._keep_good_lock()

    def _keep_good_lock(self) -> None:
        good = self.root / STATE_FOLDER / _GOOD_LOCK
        write_bytes(good, (self.root / "dvc.lock").read_bytes())

    def status_clean(self) -> bool:
        """True when `dvc status` has nothing to say."""
        return not self.changed()

    def lock(self) -> dict[str, Any]:
        """The stages of `dvc.lock`; empty where there is none yet."""
        path = self.root / "dvc.lock"
        if not path.exists():
            return {}
        stages: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8")).get("stages", {})
        return stages

    def lock_at(self, revision: str) -> dict[str, Any]:
        """The stages of `dvc.lock` at a git revision of the workspace."""
        value: dict[str, Any] = yaml.safe_load(repository.git(self.root, "show", f"{revision}:dvc.lock"))["stages"]
        return value

    def read_bytes_at(self, path: str, revision: str) -> bytes:
        """A file that DVC keeps, as it was at a git revision of the workspace.

        ServiceError where DVC has it no more, or has other bytes: it reads from its cache without looking at them.
        """
        from dvc.api import DVCFileSystem
        from dvc.exceptions import DvcException

        try:
            files = DVCFileSystem(str(self.root), rev=revision)
            try:
                wanted = str(files.info(path)["dvc_info"]["md5"])
                payload: bytes = files.cat_file(path)
            finally:
                files.close()
        except (DvcException, OSError, KeyError) as error:
            msg = f"{path} at {revision}: DVC cannot deliver it: {error}. If the cache was cleaned: dvc pull"
            raise ServiceError(msg) from error
        found = hashlib.md5(payload, usedforsecurity=False).hexdigest()
        if found != wanted:
            object_of = f".dvc/cache/files/md5/{wanted[:2]}/{wanted[2:]}"
            msg = (
                f"{path} at {revision}: expected the MD5 {wanted} of dvc.lock, found {found}: DVC's cache or remote is "
                f"damaged. Remove {object_of} in {self.root} and fetch it from a sound remote: dvc pull"
            )
            raise ServiceError(msg)
        return payload

    def export_at(self, path: str, revision: str, target: Path) -> None:
        """Copy a folder that DVC keeps, as it was at a git revision, to the new folder `target`.

        ServiceError where DVC cannot deliver it. Bytes are not looked at: who reads shards checks their SHA-256.
        """
        from dvc.api import DVCFileSystem
        from dvc.exceptions import DvcException

        logging.getLogger("dvc").setLevel(logging.ERROR)
        try:
            files = DVCFileSystem(str(self.root), rev=revision)
            try:
                with staged_folder(target) as temporary:
                    files.get(path, str(temporary), recursive=True)
            finally:
                files.close()
        except (DvcException, OSError, KeyError) as error:
            msg = f"{path} at {revision}: DVC cannot deliver it: {error}. If the cache was cleaned: dvc pull"
            raise ServiceError(msg) from error

    def data_digest(self) -> str:
        """SHA-256 over what the ingest stages made: the identity of the data version."""
        known = set(self.plan())
        made = {
            name: entry.get("outs")
            for name, entry in self.lock().items()
            if name.startswith(INGEST_PREFIX) and name in known
        }
        return digest_of(made)

    def data_version(self) -> DataVersion | None:
        """The newest data version, as it was tagged; None before the first. Changes nothing.

        The data has changed since where `data_digest()` is another than its digest.
        """
        tags = repository.data_tags(self.root)
        if not tags:
            return None
        said = repository.tag_message(self.root, tags[-1]).partition(_DIGEST_LINE)[2].split()
        commit = repository.git(self.root, "rev-list", "-n", "1", tags[-1])
        return DataVersion(tags[-1], commit, said[0] if said else "", created=False)

    def tag_data_version(self) -> DataVersion:
        """Commit `dvc.lock` and its inputs and tag them `data-v<N>`; the newest tag where the data is the same.

        For who holds the run lock: beside a run at work it would tag data of which half is made.
        """
        digest = self.data_digest()
        newest = self.data_version()
        if newest is not None and newest.digest == digest:
            return newest
        tag = repository.next_tag(self.root)
        names = [name.removeprefix(INGEST_PREFIX) for name in self.plan() if name.startswith(INGEST_PREFIX)]
        commit = repository.commit_paths(self.root, VERSIONED, f"{tag}: {len(names)} datasets")
        message = f"{tag}\n\n{_DIGEST_LINE}{digest}\ndatasets: {', '.join(sorted(names))}"
        repository.git(self.root, "tag", "--annotate", tag, "--message", message, commit)
        return DataVersion(tag, commit, digest, created=True)

    def commit_state(self, message: str) -> str:
        """Commit `dvc.lock` after the later stages, so that the workspace's git is clean."""
        return repository.commit_paths(self.root, VERSIONED, message)


def free_disk_bytes(path: Path) -> int:
    """Free bytes on the disk that holds `path` or its nearest existing parent."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free
