"""Files of a closed dataset are named by patients: no such name is in what leaves the machine, or in any message."""

from __future__ import annotations

import json
import logging
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from infra.errors import DataError
from preprocessing import names
from preprocessing.cards import Binary, DatasetCard, Layout, Licence
from preprocessing.inventory import badly_named, read_inventory, scan, write_inventory
from preprocessing.pairing import pair
from tests.security.planted import MARK, UID_MARK
from tests.security.test_phi import canaries, everything

KEY = b"a key outside the repository"
CARD = DatasetCard(
    name="hospital",
    title="A hospital's own",
    modality="ultrasound",
    licence=Licence("internal"),
    citation="nobody",
    homepage="https://example.org",
    layout_checked="made here",
    layouts=(Layout(image=r"(?P<case>[^/]+)/us\.png", label=r"(?P<case>[^/]+)/mask\.png"),),
    labels=Binary("polyp"),
    public=False,
)
YAML = """\
name: Hospital
modality: ultrasound
licence: {terms: internal use, redistribution: no, commercial: no}
layouts:
  - image: "{case}/us.png"
    label: "{case}/mask.png"
labels: {kind: Binary, concept: polyp}
"""


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Six patients by name, a letter about one of them, and a link out of the folder."""
    root, noise = tmp_path / "raw", np.random.default_rng(5)
    for number in range(6):
        home = root / f"{MARK}{number}_Jane_{UID_MARK}.{number}"
        home.mkdir(parents=True)
        Image.fromarray(noise.integers(0, 255, (48, 64), dtype=np.uint8)).save(home / "us.png")
        mask = np.zeros((48, 64), np.uint8)
        mask[5 : 10 + number, 7:30] = 255
        Image.fromarray(mask).save(home / "mask.png")
    (root / f"{MARK}0_Jane_{UID_MARK}.0" / "us.png").write_bytes(f"{MARK} is no picture".encode())
    (root / f"letter.about_{MARK}_Jane").write_text(f"{MARK}", encoding="utf-8")
    (root / f"{MARK}_link_of_Jane.png").symlink_to("/etc/hostname")
    return root


def test_the_inventory_that_leaves_has_pseudonyms_that_find_the_files_again(raw: Path, tmp_path: Path) -> None:
    files = scan(raw, tmp_path / "cache.json", names.for_messages(CARD, KEY))
    assert canaries(json.dumps(files).encode())
    write_inventory(tmp_path / "hospital.jsonl", names.hidden(CARD, files, KEY))
    assert not canaries((tmp_path / "hospital.jsonl").read_bytes())
    listed = read_inventory(tmp_path / "hospital.jsonl")
    assert len({one["file"] for one in listed}) == len(files) == 13
    again = names.found_again(CARD, listed, raw, KEY)
    assert sorted(again, key=lambda one: str(one["file"])) == files
    with pytest.raises(DataError, match=r"13 scanned file.*another SEGFOUNDRY_PSEUDONYM_KEY"):
        names.found_again(CARD, listed, raw, b"another key")
    next(raw.glob("letter*")).unlink()
    with pytest.raises(
        DataError, match=r"hospital: 1 scanned file\(s\) are gone, first f-[0-9a-f]{20}\. Scan"
    ) as caught:
        names.found_again(CARD, listed, raw, KEY)
    assert not canaries(str(caught.value).encode())


def test_who_has_the_machine_finds_the_file_that_a_pseudonym_stands_for(raw: Path, tmp_path: Path) -> None:
    files = scan(raw, tmp_path / "cache.json", names.for_messages(CARD, KEY))
    path = tmp_path / "names" / "hospital.json"
    names.keep_names(CARD, files, KEY, path)
    known = json.loads(path.read_text(encoding="utf-8"))
    assert {names.shown_file(CARD, real, KEY): real for real in known.values()} == known
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_scan_names_nobody_in_warnings_and_errors(
    raw: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shown = names.for_messages(CARD, KEY)
    with caplog.at_level(logging.DEBUG):
        scan(raw, tmp_path / "cache.json", shown)
        (raw / os.fsdecode(f"{MARK}_Jane".encode() + b"\xff.png")).write_bytes(b"x")
        files = scan(raw, tmp_path / "cache.json", shown)
    assert "not followed" in caplog.text
    assert not canaries(caplog.text.replace(str(tmp_path), "").encode())
    # a name that is not UTF-8 is listed, and written as a pseudonym as all are
    (bad,) = [each["file"] for each in files if badly_named(each["file"])]
    assert re.fullmatch(r"f-[0-9a-f]{20}\.png", names.shown_file(CARD, bad, KEY))


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser reads everything")
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_cannot_be_read_names_nobody(raw: Path, tmp_path: Path, kind: str) -> None:
    folder = next(raw.glob(f"{MARK}1*"))
    closed = folder if kind == "folder" else folder / "us.png"
    closed.chmod(0)
    try:
        with pytest.raises(DataError, match="expected a readable") as caught:
            scan(raw, tmp_path / "cache.json", names.for_messages(CARD, KEY))
    finally:
        closed.chmod(0o700)
    assert not canaries(str(caught.value).encode())


def test_two_cases_of_one_name_are_told_apart_without_a_word() -> None:
    card = DatasetCard(**{**vars(CARD), "layouts": (Layout(image=r"(?P<case>.+)\.png", label=r"(?P<case>.+)\.bmp"),)})
    cases = pair(card, [f"{MARK} Jane.png", f"{MARK}_Jane.png"])
    assert len({case.case_id for case in cases}) == 2
    shown = [names.shown_case(card, case.case_id, KEY) for case in cases]
    assert len(set(shown)) == 2
    assert not canaries(" ".join(shown).encode())


def segfoundry(*arguments: str, code: int = 0) -> str:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("SEGFOUNDRY_", "PREFECT_"))}
    own |= {"SEGFOUNDRY_OFFLINE": "1", "SEGFOUNDRY_PSEUDONYM_KEY": "SECRETCANARY-of-the-hospital"}
    command = [sys.executable, "-m", "pipelines", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=own, timeout=300, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_no_name_and_no_key_leaves_the_workspace(raw: Path, tmp_path: Path) -> None:
    card, root = tmp_path / "card.yaml", tmp_path / "workspace"
    card.write_text(YAML, encoding="utf-8")
    where = ["--workspace", str(root)]
    said = segfoundry("data", "ingest", "--card", str(card), "--root", str(raw), *where)
    said += segfoundry("data", "card", "Hospital", *where) + segfoundry("data", "leakage", *where)
    (next(raw.glob(f"{MARK}3*")) / "us.png").unlink()
    segfoundry("data", "ingest", "Hospital", *where)
    for text in (said.encode(),):
        assert not canaries(text)
        assert b"SECRETCANARY" not in text
    leaves = everything(root)
    local = {name for name in leaves if name.startswith(".segfoundry/")}
    assert any(canaries(leaves[name]) for name in local)  # the real names are there, and only there
    for name in set(leaves) - local:
        assert not canaries(leaves[name]), name
        assert not canaries(name.encode()), name
    for name, content in leaves.items():
        assert b"SECRETCANARY" not in content, name
    history = subprocess.run(
        ["git", "cat-file", "--batch-all-objects", "--batch", "--unordered"], cwd=root, capture_output=True, check=True
    )
    assert b"Hospital" in history.stdout
    assert not canaries(history.stdout)
    assert b"SECRETCANARY" not in history.stdout
    tracked = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True, check=True).stdout
    assert ".segfoundry" not in tracked
