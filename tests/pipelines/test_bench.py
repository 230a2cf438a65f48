"""The benchmark measures what it says: copies are cases, counts of work are counts, made-up manifests are manifests."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipelines import plan
from pipelines.bench import codecs, inputs, machine, manifests, page, remembered
from preprocessing.cards import load_card
from preprocessing.diff import LISTS, diff
from preprocessing.schema import MANIFEST_SCHEMA


def test_an_added_case_costs_one_case_and_the_shard_that_it_falls_in(tmp_path: Path) -> None:
    first, again, added = remembered.measure(tmp_path, cases=60)
    assert first["shards"] >= 4
    assert (first["cases_read"], first["shards_made"]) == (60, first["shards"])
    assert (again["cases_read"], again["shards_made"], again["shards_changed"]) == (0, 0, 0)
    assert (added["cases_read"], added["shards_made"], added["shards_changed"]) == (1, 1, 1)
    assert all(one["complete"] for one in (first, again, added))


@pytest.mark.parametrize(
    ("pattern", "file"),
    [
        (r"images/(?P<case>[^/]+)\.png", "images/a (1)-copy2.png"),
        (r"(.*/)?(?P<case>(?P<split>testA|train)_\d+)\.bmp", "x/train_7-copy0.bmp"),
        (r"(?P<case>Image_\d{2}[LR])\.jpg", "Image_01L-copy11.jpg"),
        (r"(?P<case>[()]\(\d\))_mask", "((4)-copy3_mask"),
    ],
)
def test_a_copy_has_a_case_name_of_its_own(pattern: str, file: str) -> None:
    match = re.fullmatch(inputs._with_copies(pattern), file)
    assert match is not None
    assert re.search(r"-copy\d+$", match["case"])
    assert re.fullmatch(inputs._with_copies(pattern), re.sub(r"-copy\d+", "", file))


def test_copies_of_a_real_dataset_are_that_many_cases(mirror: Path, tmp_path: Path) -> None:
    for name in ("Kvasir-SEG", "CHASE_DB1"):
        once = inputs.Part(load_card(name), mirror / name).pairs()
        twice = inputs.repeated(load_card(name), mirror / name, tmp_path / name, 2).pairs()
        assert len(twice) == 2 * len(once) > 0
        assert all(Path(file).is_file() for pair in twice for file in (pair["image"], *pair["labels"]))


def test_codecs_meet_the_same_pictures(mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = {**plan.project_params(), "datasets": ["WBC_segmentation", "not there"]}
    monkeypatch.setattr(plan, "project_params", lambda: params)
    rows = codecs.measure(mirror, tmp_path, 1)
    assert {row["codec"] for row in rows} == {"png", "htj2k", "zstd"}
    for kind in {row["kind"] for row in rows}:
        assert len({row["pictures"] for row in rows if row["kind"] == kind}) == 1
    assert all(row["kb"] > 0 and row["encode_ms"] > 0 and row["decode_ms"] > 0 for row in rows)
    text = page.markdown({"machine": machine.describe(), "repetitions": 1, "total_s": 1, "codecs": rows})
    assert text.count("| htj2k |") == len(rows) // 3


def test_a_made_up_manifest_is_a_manifest_and_changes_where_it_should(tmp_path: Path) -> None:
    old, new = tmp_path / "old.parquet", tmp_path / "new.parquet"
    rows = manifests.BLOCK + 9_000
    manifests.write(old, rows, changed=False)
    manifests.write(new, rows, changed=True)
    first = pq.read_table(old)
    assert first.schema.equals(MANIFEST_SCHEMA)
    assert first.num_rows == rows - 28  # those that the new one alone has
    for name in ("sample_id", "content_sha256", "pixels_digest", "labels_digest"):
        assert pc.count_distinct(first[name]).as_py() == first.num_rows
    assert first.equals(first.sort_by("sample_id"))
    counts = diff(first, pq.read_table(new))["counts"]
    assert sum(counts[name] for name in LISTS) == rows // 1000 + 1
    assert (counts["changed_pixels"], counts["changed_labels"], counts["moved"]) == (29, 28, 28)
    assert (counts["added"], counts["removed"], counts["pixels_not_told"]) == (28, 28, 0)
    assert manifests.case(old, new, rows) == manifests.SLICES
    assert sum(manifests.splits(old, new, rows).values()) == first.num_rows


def test_a_question_that_needs_too_much_is_stopped_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests, "QUESTIONS", {"split counts": "splits", "one that is unknown": "nonsense"})
    good, bad = manifests.measure(2_000, tmp_path, 1)
    assert (good["met"], sum(good["answer"].values())) == (True, 2_000)
    assert not bad["met"]
    assert "NOT met" in page.markdown(
        {"machine": machine.describe(), "repetitions": 1, "total_s": 1, "manifest": [good, bad]}
    )


def test_the_page_tells_bad_figures_too() -> None:
    row = {
        "title": "small volumes", "samples": 10, "contestant": "loop", "contestant_title": "a loop", "is_ours": False,
        "samples_per_s": 5.0, "low": 4.0, "high": 6.0, "bytes": 2_000_000, "ratio": 1.2, "ratio_low": 1.0,
        "ratio_high": 1.4, "target": 2.0, "met": False,
    }  # fmt: skip
    figures = {"machine": machine.describe(), "repetitions": 3, "total_s": 60, "ingest": [row]}
    text = page.markdown(figures)
    assert "| a loop | 5 (4–6) | 2 | 1.2 × (1.0–1.4) | ≥ 2 ×: NOT met |" in text
    assert json.dumps(figures)
    assert str(Path.home()) not in text
