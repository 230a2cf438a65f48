"""Where datasets come from."""

from __future__ import annotations

import functools
import hashlib
import http.server
import socket
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pytest

from infra.errors import DataError, UsageError
from infra.remote import sync_folder
from preprocessing import sources
from preprocessing.cards import Official, load_card
from preprocessing.sources import locate, scan

CARD = replace(load_card("Phantom_Nuclei"), name="Some_Set", official=None)
MB = 1_000_000


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    sources.forget()
    yield
    sources.forget()


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server with folder listings: its address and the folder it shows."""
    folder = tmp_path / "web"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Silent."""

    handler = functools.partial(Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", folder
    server.shutdown()
    server.server_close()
    thread.join()


def _find(card: Any = CARD, mirror: str | None = None, **options: Any) -> sources.Located:
    return locate(card, mirror=mirror, **{"offline": False, "max_bytes": 300 * MB, **options})


def _mirror(root: Path, name: str = "Some_Set") -> Path:
    (root / name / "images").mkdir(parents=True)
    (root / name / "images" / "a.png").write_bytes(b"a" * 100)
    (root / name / "list.csv").write_text("x\n")
    return root


# -- the mirror ---------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["Some_Set", "some_set", "SOME_SET"])
def test_a_mirror_folder_is_found_in_any_case_of_letters(tmp_path: Path, folder: str) -> None:
    root = _mirror(tmp_path / "mirror", folder)
    for mirror in (str(root), root.as_uri()):
        found = _find(mirror=mirror, downloads=tmp_path / "downloads", offline=True)
        assert (found.kind, found.path) == ("mirror", root / folder)
    assert not (tmp_path / "downloads").exists()


def test_a_mirror_that_does_not_exist_is_wrong_use(tmp_path: Path) -> None:
    for mirror in (str(tmp_path / "typo"), "memory://no-such-mirror", "nonsense://x"):
        with pytest.raises(UsageError, match="expected a folder") as caught:
            _find(mirror=mirror, downloads=tmp_path)
        assert caught.value.exit_code == 2


def test_two_folders_that_differ_by_case_alone_are_wrong_use(tmp_path: Path) -> None:
    _mirror(tmp_path, "some_set")
    _mirror(tmp_path, "SOME_SET")
    with pytest.raises(UsageError, match="SOME_SET, some_set"):
        _find(mirror=str(tmp_path), downloads=tmp_path)


def test_a_dataset_the_mirror_lacks_is_missing_with_both_reasons(tmp_path: Path) -> None:
    (tmp_path / "Some_Set").mkdir()
    (tmp_path / "Some_Set" / ".DS_Store").write_bytes(b"x")
    empty = _find(mirror=str(tmp_path), downloads=tmp_path)
    assert (empty.kind, empty.path) == ("missing", None)
    assert "folder Some_Set is empty" in empty.reason
    assert "no official address" in empty.reason
    other = _find(replace(CARD, name="Other"), mirror=str(tmp_path), downloads=tmp_path)
    assert "has no folder Other" in other.reason


def test_a_remote_mirror_is_copied_once_and_follows_changes(tmp_path: Path) -> None:
    store = fsspec.filesystem("memory")
    store.pipe({"/mirror1/SOME_SET/images/a.png": b"a" * 100, "/mirror1/SOME_SET/b.txt": b"b", "/mirror1/Else/c": b"c"})

    first = _find(mirror="memory://mirror1", downloads=tmp_path)

    assert first.kind == "mirror"
    assert first.path is not None
    assert "2 of 2 files copied" in first.reason
    assert {each["file"] for each in scan(first.path, tmp_path / "c.json")} == {"images/a.png", "b.txt"}
    assert (first.path / "images/a.png").read_bytes() == b"a" * 100
    assert "0 of 2 files" in _find(mirror="memory://mirror1", downloads=tmp_path).reason

    store.pipe({"/mirror1/SOME_SET/b.txt": b"B", "/mirror1/SOME_SET/new": b"n"})
    store.rm("/mirror1/SOME_SET/images/a.png")
    second = _find(mirror="memory://mirror1/", downloads=tmp_path)
    assert second.path == first.path
    assert "2 of 2 files copied" in second.reason
    assert sorted(path.name for path in first.path.rglob("*")) == ["b.txt", "new"]
    assert (first.path / "b.txt").read_bytes() == b"B"


def test_a_copy_that_was_killed_goes_on_at_the_file_it_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = fsspec.filesystem("memory")
    store.pipe({f"/mirror2/{number}.bin": bytes([number]) * 50 for number in range(6)})
    real, opened = type(store)._open, []

    def failing(self: Any, path: str, *args: Any, **options: Any) -> Any:
        opened.append(path)
        if path.endswith("4.bin") and opened.count(path) == 1:
            raise ConnectionError("the line is dead")
        return real(self, path, *args, **options)

    monkeypatch.setattr(type(store), "_open", failing)
    monkeypatch.setattr("infra.remote.THREADS", 1)
    with pytest.raises(Exception, match="the line is dead"):
        sync_folder("memory://mirror2", tmp_path / "copy")
    arrived = len(list((tmp_path / "copy").iterdir()))

    done = sync_folder("memory://mirror2", tmp_path / "copy")

    assert arrived >= 4
    assert done.copied == 6 - arrived
    assert sorted(path.name for path in (tmp_path / "copy").iterdir()) == [f"{number}.bin" for number in range(6)]
    with pytest.raises(DataError, match="at most 100 bytes, found 300"):
        sync_folder("memory://mirror2", tmp_path / "other", max_bytes=100)
    assert not (tmp_path / "other").exists()


def test_a_mirror_on_the_web_is_copied_from_its_listing(web: tuple[str, Path], tmp_path: Path) -> None:
    address, folder = web
    _mirror(folder)
    found = _find(mirror=address, downloads=tmp_path / "d")
    assert found.path is not None
    assert (found.path / "images/a.png").read_bytes() == b"a" * 100
    assert (found.path / "list.csv").read_text() == "x\n"
    # without the network the complete copy serves; what was never copied is missing
    again = _find(mirror=address, downloads=tmp_path / "d", offline=True)
    assert again.path == found.path
    other = _find(replace(CARD, name="Never"), mirror=address, downloads=tmp_path / "d", offline=True)
    assert (other.kind, "offline" in other.reason) == ("missing", True)


# -- official addresses -------------------------------------------------------------------------


def _published(address: str, folder: Path, **changes: Any) -> Official:
    with zipfile.ZipFile(folder / "set.zip", "w") as opened:
        opened.writestr("set/images/a.png", b"a" * 100)
    content = (folder / "set.zip").read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return replace(Official(f"{address}/set.zip", digest, len(content), "zip", root="set"), **changes)


def test_an_official_archive_is_downloaded_checked_and_unpacked_once(web: tuple[str, Path], tmp_path: Path) -> None:
    address, folder = web
    card = replace(CARD, official=_published(address, folder))

    found = _find(card, downloads=tmp_path / "d")

    assert found.kind == "official"
    assert found.path is not None
    assert (found.path / "images/a.png").read_bytes() == b"a" * 100
    assert "SEGFOUNDRY_MIRROR" in found.reason
    assert "SHA-256 as published" in found.reason
    assert _find(card, downloads=tmp_path / "d", offline=True).path == found.path


def test_an_address_without_known_size_or_digest_is_trusted_at_first(web: tuple[str, Path], tmp_path: Path) -> None:
    address, folder = web
    card = replace(CARD, official=_published(address, folder, sha256=None, bytes=0))
    found = _find(card, downloads=tmp_path / "d")
    assert found.kind == "official"
    assert hashlib.sha256((folder / "set.zip").read_bytes()).hexdigest() in found.reason
    refused = _find(replace(card, name="Large"), downloads=tmp_path / "d", max_bytes=50)
    assert (refused.kind, "at most 50 bytes" in refused.reason) == ("missing", True)


def test_a_single_file_is_kept_as_it_is(web: tuple[str, Path], tmp_path: Path) -> None:
    address, folder = web
    (folder / "one.nrrd").write_bytes(b"NRRD")
    card = replace(CARD, official=Official(f"{address}/one.nrrd", None, 4, "none"))
    found = _find(card, downloads=tmp_path / "d")
    assert found.path is not None
    assert (found.path / "one.nrrd").read_bytes() == b"NRRD"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sha256": "0" * 64}, "expected SHA-256"),
        ({"root": "elsewhere"}, "has no folder 'elsewhere'"),
        ({"unpack": "tar"}, "a readable tar archive"),
    ],
)
def test_an_archive_that_is_wrong_makes_the_dataset_missing_and_says_why(
    web: tuple[str, Path], tmp_path: Path, changes: dict[str, str], said: str
) -> None:
    card = replace(CARD, official=_published(*web, **changes))
    found = _find(card, downloads=tmp_path / "d")
    assert (found.kind, found.path) == ("missing", None)
    assert said in found.reason


def test_what_is_too_large_or_offline_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_probe", lambda url: pytest.fail(f"asked {url}"))
    card = replace(CARD, official=Official("https://example.org/a.zip", None, 5_800 * MB, "zip"))
    assert "needs 5.8 GB, limit 300 MB" in _find(card, downloads=tmp_path).reason
    assert "offline" in _find(card, downloads=tmp_path, offline=True).reason


def test_ten_datasets_on_a_dead_host_cost_one_probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    asked: list[str] = []
    real = sources._probe

    def probe(url: str) -> str:
        asked.append(url)
        return real(url)

    monkeypatch.setattr(sources, "_probe", probe)
    began = time.monotonic()
    for number in range(10):
        official = Official(f"http://127.0.0.1:{port}/{number}.zip", None, 10, "zip")
        found = _find(replace(CARD, name=f"Set{number}", official=official), downloads=tmp_path)
        assert "cannot be reached" in found.reason
    assert len(asked) == 1
    assert time.monotonic() - began < 4


def test_a_host_that_says_nothing_is_given_up_in_three_seconds(tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        card = replace(CARD, official=Official(f"http://127.0.0.1:{silent.getsockname()[1]}/a.zip", None, 1, "zip"))
        began = time.monotonic()
        assert "cannot be reached" in _find(card, downloads=tmp_path).reason
        assert time.monotonic() - began < 4


# -- several datasets, and a demo that is run again ---------------------------------------------


def test_silent_hosts_are_asked_at_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def probe(url: str) -> str:
        time.sleep(0.4)
        return f"{url} cannot be reached"

    monkeypatch.setattr(sources, "_probe", probe)
    cards = [_unreachable(number) for number in range(8)]
    began = time.monotonic()
    found = sources.locate_all(cards, mirror=None, downloads=tmp_path, offline=False, max_bytes=MB)
    assert time.monotonic() - began < 1.6
    assert [one.dataset for one in found] == [card.name for card in cards]
    assert all("cannot be reached" in one.reason for one in found)


def test_what_failed_is_not_asked_again_for_an_hour_unless_something_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(sources, "_probe", lambda url: asked.append(url) or "silent")
    mirror = tmp_path / "mirror"
    mirror.mkdir()

    def asks(**changes: Any) -> int:
        asked.clear()
        sources.forget()  # as in another process
        options = {"mirror": None, "offline": False, "max_bytes": MB, "memory": tmp_path / "memory.json", **changes}
        [found] = sources.locate_all([_unreachable(1)], downloads=tmp_path / "d", **options)
        assert found.path is None
        return len(asked)

    assert [asks(), asks()] == [1, 0]
    assert [asks(mirror=str(mirror)), asks(mirror=str(mirror))] == [1, 0]
    assert asks() == 1
    assert asks(memory=None) == 1
    _mirror(mirror, "Set1")
    [found] = sources.locate_all(
        [_unreachable(1)], mirror=str(mirror), downloads=tmp_path, offline=False, max_bytes=MB,
        memory=tmp_path / "memory.json",
    )  # fmt: skip
    assert found.kind == "mirror"
    assert asks() == 0
    monkeypatch.setattr(sources, "MEMORY_SECONDS", 0.0)
    assert asks() == 1


def test_offline_drops_the_memory_of_failures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_probe", lambda url: "silent")
    options: dict[str, Any] = {"mirror": None, "downloads": tmp_path, "max_bytes": MB, "memory": tmp_path / "memory"}
    assert "silent" in sources.locate_all([_unreachable(1)], offline=False, **options)[0].reason
    assert (tmp_path / "memory").is_file()
    assert "offline" in sources.locate_all([_unreachable(1)], offline=True, **options)[0].reason
    assert not (tmp_path / "memory").exists()


def _unreachable(number: int) -> Any:
    return replace(CARD, name=f"Set{number}", official=Official(f"http://h{number}.example/a.zip", None, 10, "zip"))


def test_a_download_takes_no_longer_than_the_callers_patience(
    web: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bounds: list[float] = []

    def download(*_: Any, timeouts: Any, **__: Any) -> None:
        bounds.append(timeouts.total_s)
        raise DataError("too slow")

    monkeypatch.setattr(sources, "download", download)
    card = replace(CARD, official=Official(f"{web[0]}/a.zip", None, 10, "zip"))
    sources.locate_all([card], mirror=None, downloads=tmp_path, offline=False, max_bytes=MB, patience_s=7.0)
    assert bounds == [7.0]
