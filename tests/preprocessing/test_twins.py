"""What a withdrawn case shows stays out of training under every other name: known copies, near copies, later ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from preprocessing import hashes, schema
from preprocessing.case_cache import CaseCache
from preprocessing.dedup import Match, named_in, said
from preprocessing.twins import kept_beside, pixels_of, set_aside_for
from preprocessing.withdrawn import Tombstone, add_tombstones, identifiers_of, read_tombstones
from tests.preprocessing.pictures import NEAR
from tests.preprocessing.test_build import FLAT, build
from tests.preprocessing.test_leakage import draw, name_in, picture

HELD_OUT, OTHER = (name_in("test", FLAT.name, skip) for skip in (100, 300))
FLIPPED, EQUAL, BESIDE = (name_in(split, FLAT.name, 500) for split in ("train", "val", "test"))
LATER = name_in("train", FLAT.name, 700)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A held-out picture; flipped and compressed in train, equal with another mask in val, near in its own split."""
    root = tmp_path / "raw"
    for seed, split in enumerate(("train", "train", "val", "test")):
        draw(root, name_in(split, FLAT.name, 10 * seed), picture(seed))
    draw(root, HELD_OUT, picture(50))
    draw(root, OTHER, picture(60))
    draw(root, FLIPPED, NEAR["jpeg"](picture(50)[:, ::-1].copy(), np.random.default_rng(0)))
    draw(root, EQUAL, picture(50), offset=9)
    draw(root, BESIDE, NEAR["jpeg"](picture(50), np.random.default_rng(1)))
    return root


def groups_of(out: Path) -> dict[str, str]:
    return {row["case_id"]: row["group_id"] for row in schema.read_manifest(out).to_pylist()}


def quarantine_of(out: Path) -> dict[str, dict[str, str]]:
    return {row["case_id"]: row for row in pq.read_table(out / schema.QUARANTINE_FILE).to_pylist()}


def stones(out: Path) -> list[Tombstone]:
    """As `pipelines.withdraw` sets them."""
    cases = {HELD_OUT}
    shown = pixels_of(hashes.of_version(out), cases)
    others = [
        *set_aside_for(pq.read_table(out / schema.QUARANTINE_FILE), cases), *kept_beside(out, cases)
    ]  # fmt: skip
    rest = ("consent", "ann", "2026-01-02T03:04:05+00:00")
    return [
        Tombstone(FLAT.name, HELD_OUT, *rest, pixels_sha256=tuple(shown)),
        *[Tombstone(FLAT.name, twin, *rest, twin_of=HELD_OUT) for twin in others],
    ]


def test_copies_of_a_withdrawn_case_stay_out(raw: Path, tmp_path: Path) -> None:
    out, cache = tmp_path / "out", tmp_path / "cache"
    build(FLAT, raw, out, cache)
    before = quarantine_of(out)
    assert {name: row["reason"] for name, row in before.items()} == {FLIPPED: "duplicate", EQUAL: "duplicate"}
    beside = groups_of(out)[BESIDE]
    # without tombstones of their own they would be trained on and chosen by: this is what must not happen
    build(FLAT, raw, tmp_path / "unaware", withdrawn=[HELD_OUT])
    assert BESIDE in groups_of(tmp_path / "unaware")

    set_now = stones(out)
    assert {one.identifier for one in set_now} == {HELD_OUT, FLIPPED, EQUAL, beside}
    path = tmp_path / "withdrawn.jsonl"
    add_tombstones(path, set_now)
    assert read_tombstones(path) == set_now
    report = build(FLAT, raw, out, cache, withdrawn=identifiers_of(read_tombstones(path), FLAT.name))
    assert {HELD_OUT, FLIPPED, EQUAL, BESIDE}.isdisjoint(groups_of(out))
    assert OTHER in groups_of(out)
    after = quarantine_of(out)
    assert {after[name]["reason"] for name in (HELD_OUT, FLIPPED, EQUAL, BESIDE)} == {"withdrawn"}
    assert "shows what a withdrawn case shows" in after[FLIPPED]["found"]
    assert report["counts"]["cases_found"] == report["counts"]["cases_kept"] + 4
    assert len(list(CaseCache(cache / FLAT.name).folder.glob("*.case"))) == report["counts"]["cases_kept"]


def test_without_the_rows_the_copies_would_be_trained_on(raw: Path, tmp_path: Path) -> None:
    """The fault that tombstones of twins are for; it needs the near twin beside the case to be gone as well."""
    for folder in ("images", "masks"):
        (raw / folder / f"{BESIDE}.png").unlink()
    build(FLAT, raw, tmp_path / "out", withdrawn=[HELD_OUT])
    assert {FLIPPED, EQUAL} & set(groups_of(tmp_path / "out"))


def test_an_exact_copy_that_comes_later_stays_out_and_is_not_remembered(raw: Path, tmp_path: Path) -> None:
    out, cache = tmp_path / "out", tmp_path / "cache"
    build(FLAT, raw, out, cache)
    withdrawn = identifiers_of(stones(out), FLAT.name)
    digest = pixels_of(hashes.of_version(out), {HELD_OUT})
    draw(raw, LATER, picture(50), offset=3)
    report = build(FLAT, raw, out, cache, withdrawn=withdrawn)
    row = quarantine_of(out)[LATER]
    assert (row["reason"], row["file"]) == ("withdrawn", f"images/{LATER}.png")
    assert "by its SHA-256" in row["found"]
    assert not set(digest) & set(hashes.of_version(out).column("pixels_sha256").to_pylist())
    assert len(list(CaseCache(cache / FLAT.name).folder.glob("*.case"))) == report["counts"]["cases_kept"]
    # no hash of a picture that shows nothing, which would take every black picture along
    assert len(digest) == 1


def test_old_tombstones_are_read_and_left_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "withdrawn.jsonl"
    old = '{"actor": "ann", "at": "2026-01-02T03:04:05+00:00", "dataset": "d", "identifier": "c", "reason": "r"}\n'
    path.write_text(old, encoding="utf-8")
    add_tombstones(path, [Tombstone("d", "t", "r", "ann", "2026", twin_of="c"), Tombstone("d", "p", "r", "a", "2")])
    assert path.read_text(encoding="utf-8").startswith(old)
    assert identifiers_of(read_tombstones(path), "d") == ["c", "p", "twin:t"]


@pytest.mark.parametrize("kind", ["pixels", "near", "volume"])
def test_what_quarantine_says_is_read_again(kind: str) -> None:
    right = {"key": "d/case.1/z0003", "split": "test", "kind": "slice"}
    for left in ({"kind": "picture", "key": "d/x"}, {"kind": "slice", "key": "d/x/z0001"}):
        assert named_in(said(Match(kind, left, right, 0.91))) == "d/case.1/z0003"
    assert named_in("no duplicate") == ""
