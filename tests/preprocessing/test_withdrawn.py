"""A tombstone: the case is in no shard, no manifest and no cache any more, and in quarantine with the reason."""

from __future__ import annotations

from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from infra.errors import DataError
from preprocessing import schema
from preprocessing.case_cache import CaseCache
from preprocessing.withdrawn import Tombstone, add_tombstones, identifiers_of, read_tombstones
from tests.preprocessing.test_build import FLAT, build, contents, draw, reasons


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    root = tmp_path / "raw"
    for index in range(12):
        draw(root, f"case{index:02d}", index)
    return root


@pytest.mark.parametrize("named_by", ["case_id", "group_id"])
def test_a_withdrawn_case_is_nowhere_and_nothing_else_moves(flat: Path, tmp_path: Path, named_by: str) -> None:
    out, cache = tmp_path / "out", tmp_path / "cache"
    build(FLAT, flat, out, cache)
    old, files = schema.read_manifest(out), contents(out)
    gone = next(row for row in old.to_pylist() if row["case_id"] == "case05")
    entries = {path.name for path in (cache / FLAT.name).glob("*.case")}

    said = build(FLAT, flat, out, cache, withdrawn=[gone[named_by]])
    assert said["counts"]["cases_found"] == 12
    assert (said["counts"]["cases_kept"], said["counts"]["cases_quarantined"]) == (11, 1)
    assert said["reused_cases"] == 11
    assert reasons(out)["case05"][0] == "withdrawn"
    new = schema.read_manifest(out)
    assert set(old["sample_id"].to_pylist()) - set(new["sample_id"].to_pylist()) == {gone["sample_id"]}
    for path in out.glob("shard-*.parquet"):
        table = pq.read_table(path)
        assert "case05" not in table["case_id"].to_pylist()
        assert gone["content_sha256"] not in table["content_sha256"].to_pylist()
    kept = old.filter(pc.not_equal(old["sample_id"], gone["sample_id"]))
    assert schema.manifest_digest(kept) == schema.manifest_digest(new)
    assert len(entries - {path.name for path in (cache / FLAT.name).glob("*.case")}) == 1

    # a tombstone that is taken back by hand (git revert) brings the case back, byte for byte
    build(FLAT, flat, out, cache)
    assert contents(out) == files
    assert len(list(CaseCache(cache / FLAT.name).folder.glob("*.case"))) == 12


def test_tombstones_are_appended_once_and_read_strictly(tmp_path: Path) -> None:
    path = tmp_path / "withdrawn.jsonl"
    one = Tombstone("BUSI", "benign__1_", "consent withdrawn", "ann", "2026-01-02T03:04:05+00:00")
    assert read_tombstones(path) == []
    assert add_tombstones(path, [one]) == [one]
    assert add_tombstones(path, [Tombstone("BUSI", "benign__1_", "again", "bob", "2027-01-01T00:00:00+00:00")]) == []
    other = Tombstone("ISIC2017", "g-1", "error", "ann", "2026-01-03T03:04:05+00:00")
    add_tombstones(path, [other])
    assert read_tombstones(path) == [one, other]
    assert identifiers_of(read_tombstones(path), "BUSI") == ["benign__1_"]
    path.write_text(path.read_text() + '{"dataset": "BUSI"\n')
    with pytest.raises(DataError, match="line 3"):
        read_tombstones(path)


def test_a_withdrawal_and_its_end_rewrite_one_shard_and_leave_the_others_alone(flat: Path, tmp_path: Path) -> None:
    out, cache = tmp_path / "out", tmp_path / "cache"
    whole = build(FLAT, flat, out, cache)
    before = contents(out)
    for withdrawn in (["case05"], []):
        build(FLAT, flat, tmp_path / f"fresh{len(withdrawn)}", withdrawn=withdrawn)
        report = build(FLAT, flat, out, cache, withdrawn=withdrawn)
        assert contents(out) == contents(tmp_path / f"fresh{len(withdrawn)}")
        assert report["reused_shards"] == len(whole["shards"]) - 1
    assert contents(out) == before
