"""Random datasets that grow and are ingested again: nothing crosses a split, and nothing held out moves."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from preprocessing import schema
from preprocessing.leakage import leakage, version_of
from preprocessing.splits import pseudonym, split_of
from tests.preprocessing.pictures import NEAR, Picture
from tests.preprocessing.test_build import FLAT, build

DATASETS = 500 if os.environ.get("SEGFOUNDRY_SOAK") else 25
CARD = replace(FLAT, group=r"^(p\d+)_")
# A case is (patient, picture, change): equal picture numbers of two patients are planted duplicates.
CASES = st.lists(
    st.tuples(st.integers(0, 25), st.integers(0, 60), st.sampled_from(["", *NEAR])), min_size=3, max_size=14
)


def picture(number: int, change: str) -> Picture:
    rng = np.random.default_rng(number)
    values = ndimage.gaussian_filter(rng.normal(size=(48, 48)), 2.5)
    pixels = np.clip(128 + 60 * values / values.std(), 0, 255).astype(np.uint8)
    return NEAR[change](pixels, rng) if change else pixels


def draw(root: Path, cases: list[tuple[int, int, str]], first: int) -> None:
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for at, (patient, number, change) in enumerate(cases, start=first):
        name = f"p{patient}_{at:03d}.png"
        pixels = picture(number, change)
        Image.fromarray(pixels).save(root / "images" / name)
        mask = np.zeros(pixels.shape, dtype=np.uint8)
        mask[4:9, 4 : 8 + at % 5] = 255
        Image.fromarray(mask).save(root / "masks" / name)


def held_out(folder: Path) -> dict[str, str]:
    rows = schema.read_manifest(folder).select(["sample_id", "split"]).to_pylist()
    return {row["sample_id"]: row["split"] for row in rows}


@settings(max_examples=DATASETS, deadline=None, suppress_health_check=list(HealthCheck))
@given(CASES, CASES)
def test_growth_crosses_nothing_and_moves_nothing(
    old: list[tuple[int, int, str]], new: list[tuple[int, int, str]]
) -> None:
    with tempfile.TemporaryDirectory() as place:
        root, out = Path(place) / "raw", Path(place) / "out"
        draw(root, old, 0)
        digest = build(CARD, root, out)["manifest_digest"]
        before = held_out(out)
        assert leakage({"made_up": version_of(out)})["ok"]
        draw(root, new, len(old))
        build(CARD, root, out)
        after = held_out(out)
        assert leakage({"made_up": version_of(out)})["ok"]
        groups: dict[str, set[str]] = {}
        for row in schema.read_manifest(out).select(["group_id", "split"]).to_pylist():
            groups.setdefault(row["group_id"], set()).add(row["split"])
        assert all(len(splits) == 1 for splits in groups.values())
        # what was in test is in test; what was elsewhere is where it was, or left because a twin came
        gone = {row["case_id"]: row["reason"] for row in pq.read_table(out / schema.QUARANTINE_FILE).to_pylist()}
        for sample, split in before.items():
            if sample in after:
                assert after[sample] == split
            else:
                assert split != "test"
                assert gone[sample.partition("/")[2]] == "duplicate"
        # a second ingest of the old files alone is the first one again
        for file in [*(root / "images").iterdir(), *(root / "masks").iterdir()]:
            if int(file.stem.partition("_")[2]) >= len(old):
                file.unlink()
        assert build(CARD, root, out)["manifest_digest"] == digest


@given(
    st.text(min_size=1), st.text(min_size=1), st.sets(st.text(min_size=1), max_size=30), st.sets(st.text(min_size=1))
)
def test_a_groups_split_does_not_know_of_others(dataset: str, key: str, old: set[str], new: set[str]) -> None:
    before = {group: split_of(dataset, group, key, 0.15, 0.15) for group in old}
    after = {group: split_of(dataset, group, key, 0.15, 0.15) for group in sorted(old | new, reverse=True)}
    assert before.items() <= after.items()
    names = {pseudonym(dataset, group, key.encode()) for group in old | new}
    assert len(names) == len(old | new)
