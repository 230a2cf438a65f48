from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import numpy as np
import pytest

from infra import hashed_cache
from infra.errors import DataError, ServiceError, UsageError
from infra.hashed_cache import HashedCache
from tests.served import Served, served

SIZE = 100_000
CHILD = """
import sys
from pathlib import Path
from infra.hashed_cache import HashedCache
cache = HashedCache(Path(sys.argv[1]), int(sys.argv[2]))
for item in sys.argv[3:]:
    url, sha256 = item.split("=")
    with cache.fetch(url, sha256, "Alpha: shard").open("rb") as handle:
        assert len(handle.read()) == 100_000
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    folder = tmp_path / "remote"
    folder.mkdir()
    for number in range(8):
        (folder / str(number)).write_bytes(np.random.default_rng(number).bytes(SIZE))
    with served(folder) as found:
        yield found


def _sha(server: Served, name: str) -> str:
    return hashlib.sha256((server.folder / name).read_bytes()).hexdigest()


def _fetch(cache: HashedCache, server: Served, name: str) -> Path:
    return cache.fetch(f"{server.url}/{name}", _sha(server, name), f"Alpha: {name}")


def _held(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.suffix != ".lock"]


def test_the_least_recently_asked_for_makes_way(server: Served, tmp_path: Path) -> None:
    cache = HashedCache(tmp_path / "cache", 3 * SIZE)
    for name in "0120":
        assert _fetch(cache, server, name).read_bytes() == (server.folder / name).read_bytes()
        time.sleep(0.01)
    _fetch(cache, server, "3")
    assert {path.name for path in _held(tmp_path / "cache")} == {_sha(server, name) for name in "023"}
    assert server.asked["0"] == 1, "what is at hand is not asked for again"


def test_what_is_open_stays_readable_when_it_is_evicted(server: Served, tmp_path: Path) -> None:
    cache = HashedCache(tmp_path / "cache", SIZE)
    with _fetch(cache, server, "0").open("rb") as handle:
        _fetch(cache, server, "1")
        assert len(_held(tmp_path / "cache")) == 1
        assert handle.read() == (server.folder / "0").read_bytes()


def test_a_wrong_hash_is_named_and_nothing_is_kept(server: Served, tmp_path: Path) -> None:
    cache = HashedCache(tmp_path / "cache", 3 * SIZE)
    wanted = _sha(server, "0")
    (server.folder / "0").write_bytes(b"x" * SIZE)
    with pytest.raises(DataError, match=f"Alpha: 0: expected SHA-256 {wanted}, found {_sha(server, '0')}"):
        cache.fetch(f"{server.url}/0", wanted, "Alpha: 0")
    assert not _held(tmp_path / "cache")


def test_what_is_missing_too_large_or_away(server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = HashedCache(tmp_path / "cache", 3 * SIZE)
    with pytest.raises(DataError, match="nothing: expected a file, found nothing there"):
        cache.fetch(f"{server.url}/nothing", "0" * 64, "Alpha: nothing")
    with pytest.raises(UsageError, match=f"Alpha: 0: expected a file that fits the cache of 10 bytes, found {SIZE}"):
        _fetch(HashedCache(tmp_path / "cache", 10), server, "0")
    monkeypatch.setattr(hashed_cache, "PAUSE_SECONDS", 0.01)
    server.refusals = 2
    assert _fetch(cache, server, "0").stat().st_size == SIZE, "a store that comes back is asked again"
    server.refusals = 1000
    with pytest.raises(ServiceError, match="expected a store that answers"):
        _fetch(cache, server, "1")
    assert len(_held(tmp_path / "cache")) == 1


def test_other_stores(tmp_path: Path) -> None:
    cache = HashedCache(tmp_path / "cache", 3 * SIZE)
    payload = b"abc" * 1000
    fsspec.filesystem("memory").pipe({"/hashed/one": payload})
    (tmp_path / "two").write_bytes(payload[1:])
    for url, wanted in (("memory://hashed/one", payload), (f"file://{tmp_path}/two", payload[1:])):
        assert cache.fetch(url, hashlib.sha256(wanted).hexdigest(), "Alpha: one").read_bytes() == wanted


def test_processes_and_threads_bring_each_file_once(server: Served, tmp_path: Path) -> None:
    server.pause_s = 0.005
    items = [f"{server.url}/{number}={_sha(server, str(number))}" for number in range(8)]
    command = [sys.executable, "-c", CHILD, str(tmp_path / "cache"), str(10 * SIZE)]
    running = [subprocess.Popen([*command, *items[start:], *items[:start]]) for start in (0, 3)]
    cache = HashedCache(tmp_path / "cache", 10 * SIZE)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: _fetch(cache, server, name), "0011223344"))
    assert [process.wait(timeout=60) for process in running] == [0, 0]
    assert set(server.asked.values()) == {1}


def test_a_small_cache_is_shared_without_going_over_its_limit(server: Served, tmp_path: Path) -> None:
    items = [f"{server.url}/{number}={_sha(server, str(number))}" for number in range(8)]
    cache = tmp_path / "cache"
    running = [
        subprocess.Popen([sys.executable, "-c", CHILD, str(cache), str(4 * SIZE), *items[s:], *items[:s]])
        for s in (0, 4)
    ]
    while any(process.poll() is None for process in running):
        if cache.is_dir():
            assert sum(1 for _ in _held(cache)) <= 4
        time.sleep(0.001)
    assert [process.returncode for process in running] == [0, 0]


def test_a_file_that_gets_its_name_between_the_listing_and_the_look_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arriving = tmp_path / ("a" * 64 + ".arriving")
    arriving.write_bytes(b"12345")
    listed = list(tmp_path.iterdir())
    arriving.rename(tmp_path / ("a" * 64))
    monkeypatch.setattr(Path, "iterdir", lambda folder: iter(listed))
    assert [(size, path.name) for _, size, path in hashed_cache._held(tmp_path)] == [(5, "a" * 64)]


def test_killed_while_a_file_arrives_it_is_brought_again(server: Served, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    server.pause_s = 0.1
    item = f"{server.url}/0={_sha(server, '0')}"
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(cache), str(3 * SIZE), item])
    arriving = cache / f"{_sha(server, '0')}.arriving"
    deadline = time.monotonic() + 60
    while not arriving.is_file():
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert arriving.is_file()
    assert not (cache / _sha(server, "0")).exists(), "half a file has no name that anybody reads"
    server.pause_s = 0.0
    ours = HashedCache(cache, 3 * SIZE)
    _fetch(ours, server, "1")
    assert not arriving.exists(), "what a killed process began is removed by the next one that makes room"
    assert _fetch(ours, server, "0").read_bytes() == (server.folder / "0").read_bytes()
