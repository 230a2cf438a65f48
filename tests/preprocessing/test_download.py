"""Downloads against a real web server that behaves badly, and archives that mean harm."""

from __future__ import annotations

import hashlib
import io
import socket
import stat
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from infra.errors import DataError, ServiceError
from preprocessing.download import Timeouts, download, unpack

CONTENT = np.random.default_rng(3).bytes(1_500_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()
FAST = Timeouts(connect_s=1, read_s=2, total_s=20, attempts=3, backoff_s=0.02)


class Server(ThreadingHTTPServer):
    """Serves `content` under every path and notes what was asked; the switches say how it misbehaves."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.etag = '"one"'
        self.ranges: list[str | None] = []
        self.break_after: list[int] = []  # bytes of each coming answer after which the connection is cut
        self.honours_range = True
        self.tells_length = True
        self.status: list[int] = []  # answers to give first

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/archive.bin"

    def handle_error(self, request: object, client_address: object) -> None:
        """A cut connection is the point of the test, not a line in its output."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server = self.server
        asked = self.headers.get("Range")
        server.ranges.append(asked)
        if server.status:
            self.send_response(server.status.pop(0))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = 0
        unchanged = self.headers.get("If-Range") in (None, server.etag)
        if asked and server.honours_range and unchanged:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
        body = server.content[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
        if server.tells_length:
            self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", server.etag)
        self.end_headers()
        cut = server.break_after.pop(0) if server.break_after else None
        self.wfile.write(body[:cut])
        if cut is not None:
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    running = Server()
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield running
    running.shutdown()
    running.server_close()
    thread.join()


def test_a_download_that_breaks_off_twice_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.break_after = [400_000, 500_000]
    target = tmp_path / "archive.bin"

    got = download(server.url, target, sha256=DIGEST, expected_bytes=len(CONTENT), timeouts=FAST)

    assert target.read_bytes() == CONTENT
    assert got.sha256 == DIGEST
    assert server.ranges[0] is None
    starts = [int(asked.removeprefix("bytes=").removesuffix("-")) for asked in server.ranges[1:] if asked]
    assert len(starts) == 2
    assert 0 < starts[0] <= 400_000 < starts[1] <= 900_000
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == ["archive.bin"]


def test_a_killed_download_is_resumed_by_the_next_run(server: Server, tmp_path: Path) -> None:
    server.break_after = [300_000] * 2
    target = tmp_path / "archive.bin"
    once = Timeouts(connect_s=1, read_s=2, total_s=20, attempts=1, backoff_s=0.02)
    with pytest.raises(ServiceError, match="is kept"):
        download(server.url, target, sha256=DIGEST, expected_bytes=None, timeouts=once)
    assert not target.exists()

    got = download(server.url, target, sha256=DIGEST, expected_bytes=None, timeouts=FAST)

    assert got.resumed_from > 0
    assert target.read_bytes() == CONTENT


def test_a_file_that_changed_on_the_server_is_never_spliced(server: Server, tmp_path: Path) -> None:
    server.break_after = [300_000]
    target = tmp_path / "archive.bin"
    once = Timeouts(connect_s=1, read_s=2, total_s=20, attempts=1)
    with pytest.raises(ServiceError):
        download(server.url, target, sha256=None, expected_bytes=None, timeouts=once)
    server.content, server.etag = CONTENT[::-1], '"two"'

    download(server.url, target, sha256=None, expected_bytes=None, timeouts=FAST)

    assert target.read_bytes() == CONTENT[::-1]


def test_a_server_that_ignores_range_sends_the_whole_file_again(server: Server, tmp_path: Path) -> None:
    server.honours_range, server.break_after = False, [700_000]
    got = download(server.url, tmp_path / "a", sha256=DIGEST, expected_bytes=len(CONTENT), timeouts=FAST)
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert got.resumed_from == 0
    assert server.ranges[1] is not None


def test_a_busy_server_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.status = [503, 429]
    download(server.url, tmp_path / "a", sha256=DIGEST, expected_bytes=None, timeouts=FAST)
    assert len(server.ranges) == 3


def test_wrong_bytes_are_removed_and_named(server: Server, tmp_path: Path) -> None:
    server.content = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    wrong = hashlib.sha256(server.content).hexdigest()
    with pytest.raises(DataError, match=f"expected SHA-256 {DIGEST}.*found {wrong}"):
        download(server.url, tmp_path / "a", sha256=DIGEST, expected_bytes=len(CONTENT), timeouts=FAST)
    assert not [path for path in tmp_path.iterdir() if not path.name.startswith(".")]


def test_without_a_published_digest_the_first_download_is_what_later_ones_must_equal(
    server: Server, tmp_path: Path
) -> None:
    target = tmp_path / "a"
    assert download(server.url, target, sha256=None, expected_bytes=None, timeouts=FAST).fetched
    assert (tmp_path / "a.sha256").read_text().split() == [DIGEST, "a"]
    assert not download(server.url, target, sha256=None, expected_bytes=None, timeouts=FAST).fetched
    assert len(server.ranges) == 1

    target.unlink()
    server.content = CONTENT[::-1]
    with pytest.raises(DataError, match="recorded at the first download"):
        download(server.url, target, sha256=None, expected_bytes=None, timeouts=FAST)
    assert not target.exists()


def test_a_file_damaged_on_disk_is_fetched_again(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "a"
    download(server.url, target, sha256=DIGEST, expected_bytes=None, timeouts=FAST)
    target.write_bytes(b"rot" + CONTENT[3:])
    assert download(server.url, target, sha256=DIGEST, expected_bytes=None, timeouts=FAST).fetched
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("tells_length", [True, False])
def test_more_than_expected_is_refused(server: Server, tmp_path: Path, tells_length: bool) -> None:
    server.tells_length = tells_length
    with pytest.raises(DataError, match="at most 1000 bytes"):
        download(server.url, tmp_path / "a", sha256=None, expected_bytes=1000, timeouts=FAST)
    with pytest.raises(DataError, match="at most 900 bytes"):
        download(server.url, tmp_path / "a", sha256=None, expected_bytes=None, max_bytes=900, timeouts=FAST)
    assert not [path for path in tmp_path.iterdir() if not path.name.startswith(".")]


def test_an_answer_without_length_that_stops_early_is_not_taken_for_the_whole(server: Server, tmp_path: Path) -> None:
    server.tells_length, server.honours_range, server.break_after = False, False, [1000] * 9
    with pytest.raises(ServiceError, match="ended at byte 1000 of 1500000"):
        download(server.url, tmp_path / "a", sha256=None, expected_bytes=len(CONTENT), timeouts=FAST)


def test_a_missing_page_is_an_error_at_once(server: Server, tmp_path: Path) -> None:
    server.status = [404] * 9
    with pytest.raises(DataError, match="404"):
        download(server.url, tmp_path / "a", sha256=None, expected_bytes=None, timeouts=FAST)
    assert len(server.ranges) == 1


def test_an_address_nobody_answers_fails_in_bounded_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    began = time.monotonic()
    with pytest.raises(ServiceError, match="3 attempts in a row"):
        download(f"http://127.0.0.1:{port}/a", tmp_path / "a", sha256=None, expected_bytes=None, timeouts=FAST)
    assert time.monotonic() - began < 5


def _zip(path: Path, entries: dict[str, bytes], links: dict[str, str] | None = None) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in entries.items():
            opened.writestr(name, content)
        for name, goal in (links or {}).items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            opened.writestr(info, goal)
    return path


def _tar(path: Path, *entries: tuple[tarfile.TarInfo, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as opened:  # type: ignore[call-overload]
        for info, content in entries:
            info.size = len(content)
            opened.addfile(info, io.BytesIO(content))
    return path


def _entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def test_good_archives_unpack_to_the_same_files(tmp_path: Path) -> None:
    content = {"set/images/a.png": b"1" * 5000, "set/B.txt": b"2"}
    archives = {
        "zip": _zip(tmp_path / "a.zip", content, {"set/images/same.png": "a.png"}),
        "tar": _tar(
            tmp_path / "a.tar",
            *((_entry(name), data) for name, data in content.items()),
            (_entry("set/images/same.png", tarfile.SYMTYPE, "../images/a.png"), b""),
        ),
        "tar.gz": _tar(
            tmp_path / "a.tgz",
            *((_entry(f"./{name}"), data) for name, data in content.items()),
            (_entry("set/images/same.png", tarfile.LNKTYPE, "set/images/a.png"), b""),
            mode="w:gz",
        ),
    }
    for kind, archive in archives.items():
        folder = unpack(archive, tmp_path / f"out-{kind}", kind)  # type: ignore[arg-type]
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        assert files == {**content, "set/images/same.png": b"1" * 5000}
        assert not any(path.is_symlink() for path in folder.rglob("*"))


@pytest.mark.parametrize(
    "name", ["../out.txt", "/abs.txt", "a/../../out.txt", "a\\..\\out.txt", "C:/x.txt", "a/../b.txt"]
)
def test_a_path_that_leaves_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    for kind, archive in (
        ("zip", _zip(tmp_path / "a.zip", {"ok.txt": b"1", name: b"2"})),
        ("tar", _tar(tmp_path / "a.tar", (_entry("ok.txt"), b"1"), (_entry(name), b"2"))),
    ):
        with pytest.raises(DataError, match="relative paths"):
            unpack(archive, tmp_path / "deep" / "out", kind)  # type: ignore[arg-type]
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.tar", "a.zip", "deep"]


@pytest.mark.parametrize("goal", ["/etc/hostname", "../../secret", "folder", "missing"])
def test_a_link_to_anything_but_a_file_inside_is_refused(tmp_path: Path, goal: str) -> None:
    (tmp_path / "secret").write_text("secret")
    for kind, archive in (
        ("zip", _zip(tmp_path / "a.zip", {"folder/x": b"1"}, {"link": goal})),
        ("tar", _tar(tmp_path / "a.tar", (_entry("folder/x"), b"1"), (_entry("link", tarfile.SYMTYPE, goal), b""))),
        ("tar", _tar(tmp_path / "b.tar", (_entry("folder/x"), b"1"), (_entry("link", tarfile.LNKTYPE, goal), b""))),
    ):
        with pytest.raises(DataError):
            unpack(archive, tmp_path / "out", kind)  # type: ignore[arg-type]
        assert not (tmp_path / "out").exists()


def test_a_file_cannot_be_written_through_a_link(tmp_path: Path) -> None:
    archive = _tar(tmp_path / "a.tar", (_entry("x", tarfile.SYMTYPE, ".."), b""), (_entry("x/evil.txt"), b"!"))
    with pytest.raises(DataError):
        unpack(archive, tmp_path / "deep" / "out", "tar")
    assert not list(tmp_path.rglob("evil.txt"))


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_and_pipes_are_refused(tmp_path: Path, kind: bytes) -> None:
    with pytest.raises(DataError, match="device or pipe"):
        unpack(_tar(tmp_path / "a.tar", (_entry("null", kind), b"")), tmp_path / "out", "tar")


@pytest.mark.parametrize("second", ["Images/a.png", "images/A.PNG", "images/a.png", "images", "images/a.png/x"])
def test_names_that_are_one_name_elsewhere_are_refused(tmp_path: Path, second: str) -> None:
    archive = _tar(tmp_path / "a.tar", (_entry("images/a.png"), b"1"), (_entry(second), b"2"))
    with pytest.raises(DataError, match="every name once"):
        unpack(archive, tmp_path / "out", "tar")


def test_archives_that_grow_out_of_proportion_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("preprocessing.unpack.RATIO_FREE_BYTES", 1_000_000)
    bomb = _zip(tmp_path / "bomb.zip", {"zeros": bytes(5_000_000)})
    with pytest.raises(DataError, match="to grow at most"):
        unpack(bomb, tmp_path / "out", "zip")
    with pytest.raises(DataError, match="at most 1000 bytes"):
        unpack(bomb, tmp_path / "out", "zip", max_bytes=1000)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bomb.zip"]


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_a_broken_archive_is_refused_and_leaves_nothing(tmp_path: Path, kind: str) -> None:
    noise = np.random.default_rng(1).bytes(200_000)
    if kind == "zip":
        archive = _zip(tmp_path / "a", {"x": noise})
    else:
        archive = _tar(tmp_path / "a", (_entry("x"), noise), mode="w:gz" if kind == "tar.gz" else "w")
    archive.write_bytes(archive.read_bytes()[:90_000])
    with pytest.raises(DataError, match="a readable"):
        unpack(archive, tmp_path / "out", kind)  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_what_a_killed_unpack_left_is_cleared(tmp_path: Path) -> None:
    (tmp_path / ".out.123.part-folder").mkdir()
    unpack(_zip(tmp_path / "a.zip", {"x": b"1"}), tmp_path / "out", "zip")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "out"]
