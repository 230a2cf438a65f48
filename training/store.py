"""Where dataset versions lie, local or remote, and the check of every shard when it is opened first.

DVC delivers corrupt bytes without a word, and so may a disk or an object store: a shard is read only
after its SHA-256 was found to be what its dataset's record says, once per machine and version of the file.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from infra.errors import DataError
from infra.hashed_cache import HashedCache
from infra.remote import blocks_of, file_bytes, is_remote
from infra.storage import atomic_path, digest_of, sha256_bytes
from preprocessing import schema

_RETRIES = 5  # of opening a copy that another process evicted in between
_ASKING = 8  # requests to a remote store at a time


@dataclass(frozen=True)
class ShardFile:
    """One shard of a dataset version and what its record says of it."""

    dataset: str
    path: Path  # where it lies, or would lie if its store were local
    sha256: str


def shards_of(data_root: Path, dataset: str) -> list[ShardFile]:
    """The shards of one dataset version; DataError where the version is not complete."""
    folder = data_root / dataset
    try:
        record = schema.read_dataset_file(folder)
    except FileNotFoundError as error:
        msg = (
            f"{dataset}: expected a complete dataset version in {folder}, found no {schema.DATASET_FILE}. "
            f"Run `segfoundry data ingest {dataset}`"
        )
        raise DataError(msg) from error
    return [ShardFile(dataset, folder / name, entry["sha256"]) for name, entry in sorted(record["shards"].items())]


def check_shard(shard: ShardFile) -> None:
    """DataError that names the shard where its bytes are not what the dataset's record says."""
    found = "no file"
    if shard.path.is_file():
        with shard.path.open("rb") as handle:
            found = hashlib.file_digest(handle, "sha256").hexdigest()
    if found != shard.sha256:
        msg = (
            f"{shard.dataset}: {shard.path.name}: expected SHA-256 {shard.sha256}, found {found}. "
            f"The shard is damaged: delete it and run `dvc checkout --force`, or ingest {shard.dataset} again"
        )
        raise DataError(msg)


def digest_of_shards(shards: Iterable[ShardFile]) -> str:
    """Tells one state of the data from another: the order of the shards and their bytes."""
    return digest_of([[shard.dataset, shard.path.name, shard.sha256] for shard in shards])


class ShardStore:
    """The dataset versions below `root`, a folder or an fsspec URL (`s3://`, `http://`, `memory://`, `file://`).

    Args:
        root: holds a folder per dataset version.
        scratch: machine-local folder for notes on what was checked and, of a remote root, for the small files
            of each version and the cache of shards.
        cache_bytes: most bytes of remote shards kept.
    """

    def __init__(self, root: str, scratch: Path, cache_bytes: int) -> None:
        self._remote = is_remote(root)
        self.root = root.rstrip("/") if self._remote else root.removeprefix("file://").removeprefix("local://")
        # two roots may hold different versions under one name
        self._tables = scratch / "versions" / sha256_bytes(self.root.encode())[:16]
        self._checked = scratch / "checked"
        self._cache = HashedCache(scratch / "shards", cache_bytes)
        self._asked: set[str] = set()

    @property
    def is_remote(self) -> bool:
        """True where shards are copied before they are read."""
        return self._remote

    def folder(self, dataset: str) -> Path:
        """Local folder with a version's `dataset.json`, `concepts.json` and `manifest.parquet`.

        Of a remote version they are copied, once in the life of this object.
        """
        if not self._remote:
            return Path(self.root) / dataset
        if dataset in self._asked:
            return self._tables / dataset
        # dataset.json is written last and read first: what follows belongs to it or is found out by its hashes
        for name in (schema.DATASET_FILE, schema.CONCEPTS_FILE, schema.MANIFEST_FILE):
            with atomic_path(self._tables / dataset / name) as temporary, temporary.open("wb") as sink:
                for block in blocks_of(f"{self.root}/{dataset}/{name}"):
                    sink.write(block)
        self._asked.add(dataset)
        return self._tables / dataset

    def shards(self, dataset: str) -> list[ShardFile]:
        """The shards of a version. DataError where it is not complete."""
        return shards_of(self.folder(dataset).parent, dataset)

    def check(self, shards: Iterable[ShardFile]) -> None:
        """Before the first step. Local shards are hashed; of remote ones it is asked whether they are there.

        A remote shard is hashed while it arrives, before any of its rows is read: asking for all of them here
        would copy the whole store.
        """
        if not self._remote:
            for shard in shards:
                self.path(shard)
            return
        with ThreadPoolExecutor(_ASKING) as pool:
            list(pool.map(lambda shard: file_bytes(self._url(shard)), shards))

    def path(self, shard: ShardFile) -> Path:
        """A local file that was found to hold the shard's bytes. A copy of a remote one may be evicted again."""
        if self._remote:
            return self._cache.fetch(self._url(shard), shard.sha256, f"{shard.dataset}: {shard.path.name}")
        note = self._checked / _stamp(shard)
        if not note.is_file():
            check_shard(shard)
            note.parent.mkdir(parents=True, exist_ok=True)
            note.touch()
        return shard.path

    def open(self, shard: ShardFile, metadata: pq.FileMetaData | None = None) -> pq.ParquetFile:
        """The shard as a Parquet file; close it after use."""
        for _ in range(_RETRIES):
            try:
                return pq.ParquetFile(self.path(shard), metadata=metadata)
            except FileNotFoundError:
                continue
        msg = (
            f"{shard.dataset}: {shard.path.name}: expected a local copy that stays until it is open, found it evicted "
            f"{_RETRIES} times. Raise cache_bytes: it must hold the shards that all processes read at a time"
        )
        raise DataError(msg)

    def _url(self, shard: ShardFile) -> str:
        return f"{self.root}/{shard.dataset}/{shard.path.name}"


class Prefetch:
    """Brings shards that will soon be read, one after the other, in a thread of its own.

    An error is left to whoever reads the shard: it meets the same one, with a place to raise it.
    """

    def __init__(self, store: ShardStore) -> None:
        self._store = store
        self._asked: dict[str, set[str]] = {}
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="prefetch")

    def ask(self, dataset: str, shards: list[ShardFile]) -> None:
        """Ask for the shards of a dataset that come next; what the last call for it asked for is on its way."""
        with self._lock:
            before = self._asked.get(dataset, set())
            self._asked[dataset] = {shard.sha256 for shard in shards}
        for shard in shards:
            if shard.sha256 not in before:
                self._pool.submit(self._store.path, shard)


def _stamp(shard: ShardFile) -> str:
    """Names a version of a local file: another after any write to it, even one that restores its times."""
    try:
        found = shard.path.stat()
    except FileNotFoundError:
        return "missing"
    parts = (shard.path.resolve(), found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, shard.sha256)
    return sha256_bytes("\0".join(map(str, parts)).encode())
