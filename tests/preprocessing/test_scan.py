"""What the folders of datasets hold: every file with its digest, read once."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from infra.errors import DataError
from infra.storage import read_json
from preprocessing import inventory
from preprocessing.cards import Layout, load_card
from preprocessing.pairing import files_below, pair
from preprocessing.quality import account, unclaimed_row
from preprocessing.sources import locate, read_inventory, scan, write_inventory
from tests.preprocessing.test_sources import _mirror


def _aged(root: Path) -> None:
    """Let the files look old enough to be remembered: the racy rule asks for two quiet seconds."""
    time.sleep(0.02)
    assert any(root.rglob("*"))


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were really read, in any order."""
    read: list[str] = []
    real = inventory.sha256_file

    def counting(path: Path) -> str:
        read.append(path.name)
        return real(path)

    monkeypatch.setattr(inventory, "sha256_file", counting)
    return read


def test_a_scan_names_every_file_with_its_digest(tmp_path: Path) -> None:
    root = _mirror(tmp_path / "m") / "Some_Set"
    (root / ".DS_Store").write_bytes(b"junk")
    (root / "é.txt").write_text("é")
    found = scan(root, tmp_path / "cache.json")
    assert found == [
        {"file": "images/a.png", "bytes": 100, "sha256": hashlib.sha256(b"a" * 100).hexdigest()},
        {"file": "list.csv", "bytes": 2, "sha256": hashlib.sha256(b"x\n").hexdigest()},
        {"file": "é.txt", "bytes": 2, "sha256": hashlib.sha256("é".encode()).hexdigest()},
    ]


def test_a_second_scan_reads_nothing_and_sees_one_changed_byte(
    tmp_path: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inventory, "RACY_NS", 1_000_000)
    root, cache = _mirror(tmp_path / "m") / "Some_Set", tmp_path / "state" / "cache.json"
    _aged(root)
    first = scan(root, cache)
    assert sorted(hashed) == ["a.png", "list.csv"]
    hashed.clear()
    assert scan(root, cache) == first
    assert hashed == []

    # one byte, the same size, and the old time stamp put back: the change time gives it away
    before = (root / "images/a.png").stat()
    with (root / "images/a.png").open("r+b") as handle:
        handle.write(b"b")
    os.utime(root / "images/a.png", ns=(before.st_atime_ns, before.st_mtime_ns))
    _aged(root)
    changed = scan(root, cache)
    assert hashed == ["a.png"]
    assert changed[0]["sha256"] == hashlib.sha256(b"b" + b"a" * 99).hexdigest()
    assert changed[1:] == first[1:]


def test_a_file_written_just_now_is_read_again_next_time(tmp_path: Path, hashed: list[str]) -> None:
    root, cache = _mirror(tmp_path / "m") / "Some_Set", tmp_path / "cache.json"
    scan(root, cache)
    scan(root, cache)
    assert len(hashed) == 4


def test_one_cache_serves_many_roots_and_a_broken_cache_costs_only_time(
    tmp_path: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inventory, "RACY_NS", 1_000_000)
    cache = tmp_path / "cache.json"
    roots = [_mirror(tmp_path / name) / "Some_Set" for name in ("one", "two")]
    _aged(roots[0])
    first = [scan(root, cache) for root in roots]
    hashed.clear()
    assert [scan(root, cache) for root in roots] == first
    assert hashed == []
    assert len(read_json(cache)["roots"]) == 2
    cache.write_text('{"version": 1, "ro')
    assert scan(roots[0], cache) == first[0]
    assert len(hashed) == 2


def test_links_out_of_the_dataset_are_not_followed(tmp_path: Path) -> None:
    root = _mirror(tmp_path / "m") / "Some_Set"
    (tmp_path / "secret").write_text("secret")
    (root / "out").symlink_to(tmp_path / "secret")
    (root / "up").symlink_to(tmp_path)
    (root / "loop").symlink_to(root)
    (root / "circle").symlink_to(root / "circle")
    (root / "dead").symlink_to(root / "nothing")
    (root / "inside").symlink_to(root / "list.csv")
    os.mkfifo(root / "pipe")
    assert [each["file"] for each in scan(root, tmp_path / "c.json")] == ["images/a.png", "inside", "list.csv"]
    assert files_below(root) == ["images/a.png", "inside", "list.csv"]


def test_a_missing_root_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected a dataset's folder"):
        scan(tmp_path / "none", tmp_path / "c.json")


def test_a_name_that_is_not_utf8_ends_nothing_and_is_quarantined(tmp_path: Path) -> None:
    root, cache = tmp_path / "root", tmp_path / "c.json"
    root.mkdir()
    Path(os.fsdecode(os.fsencode(root) + b"/bad\xff.png")).write_bytes(b"1")
    listed = scan(root, cache)
    assert [each["file"] for each in listed] == files_below(root) == ["bad\\xff.png"]
    write_inventory(tmp_path / "i.jsonl", listed)
    assert read_inventory(tmp_path / "i.jsonl") == scan(root, cache) == listed
    card = load_card("Kvasir-SEG")
    anything = replace(card, layouts=(Layout(image=r"(?P<case>.+)\.png", label=r"(?P<case>.+)_mask\.png"),))
    assert pair(anything, files_below(root)) == []
    row = unclaimed_row(account(anything, files_below(root), []).unclaimed[0])
    assert (row["reason"], row["file"]) == ("file_name", "bad\\xff.png")


def test_equal_inventories_have_equal_bytes_and_survive_the_round_trip(tmp_path: Path) -> None:
    files = [
        {"file": "b\u2028 é.png", "bytes": 3, "sha256": "1" * 64},
        {"file": "a.png", "bytes": 0, "sha256": "0" * 64},
    ]
    write_inventory(tmp_path / "one", files)
    write_inventory(tmp_path / "two", [dict(reversed(each.items())) for each in reversed(files)])
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert read_inventory(tmp_path / "one") == files[::-1]
    assert (tmp_path / "one").read_text().split("\n")[0] == f'{{"file":"a.png","bytes":0,"sha256":"{"0" * 64}"}}'
    (tmp_path / "one").write_text('{"file": "a"}\n')
    with pytest.raises(DataError, match="one:1: expected file, bytes and sha256"):
        read_inventory(tmp_path / "one")


def test_the_real_mirror_is_scanned_in_time(mirror: Path, tmp_path: Path) -> None:
    found = locate(load_card("Kvasir-SEG"), mirror=str(mirror), downloads=tmp_path, offline=True, max_bytes=0)
    assert found.kind == "mirror"
    assert found.path is not None
    began = time.monotonic()
    files = scan(found.path, tmp_path / "cache.json")
    assert len(files) >= 2
    assert scan(found.path, tmp_path / "cache.json") == files
    assert time.monotonic() - began < 10
