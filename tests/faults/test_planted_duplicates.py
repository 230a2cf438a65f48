"""Planted duplicates: exact ones are all found, near ones nearly all, and strangers are left alone."""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from preprocessing import hashes
from preprocessing.dedup import Match, Part, matches
from preprocessing.harmonize import look
from preprocessing.near import candidates
from tests.preprocessing.pictures import KINDS, NEAR, Picture, volume

PAIRS = 1000 if os.environ.get("SEGFOUNDRY_SOAK") else 160


def part_of(named: dict[str, Picture | list[Picture]]) -> Part:
    """Pictures, or volumes as lists of slices, as the build hashes them, each a group of its own."""
    pixels: dict[str, Picture] = {}
    rows: list[dict[str, Any]] = []
    for name, value in named.items():
        case = name.replace("/", "_")
        slices = value if isinstance(value, list) else [value]
        flat = not isinstance(value, list)
        samples = []
        for number, one in enumerate(slices):
            key = f"d/{case}" if flat else f"d/{case}/z{number:04d}"
            pixels[key] = one
            samples.append(
                {
                    "sample_id": key,
                    "slice_index": None if flat else number,
                    "look": look.look(one, look.pixels_digest(one).hexdigest()),
                }
            )
        rows += [{**row, "group_id": name} for row in hashes.rows_of(samples, "d", case)]

    def load(keys: Iterable[str]) -> Iterator[tuple[str, Picture]]:
        return ((key, pixels[key]) for key in keys)

    return Part(rows, load)


def found_pairs(found: list[Match]) -> set[tuple[str, str]]:
    return {(one.left["group_id"], one.right["group_id"]) for one in found}


@pytest.fixture(scope="module")
def originals() -> list[Picture]:
    return [KINDS[seed % len(KINDS)](np.random.default_rng(seed)) for seed in range(PAIRS)]


def test_equal_pixels_are_found_every_time_whatever_the_encoding_and_the_labels(originals: list[Picture]) -> None:
    again = []
    for pixels in originals:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, format="PNG", compress_level=9)
        again.append(np.asarray(Image.open(buffer)))
    left = part_of({f"a{number}": pixels for number, pixels in enumerate(originals)})
    right = part_of({f"b{number}": pixels for number, pixels in enumerate(again)})
    found = [one for one in matches(left, right) if one.kind == "pixels"]
    assert found_pairs(found) == {(f"a{number}", f"b{number}") for number in range(PAIRS)}


def test_near_duplicates_are_found_and_strangers_are_not(originals: list[Picture]) -> None:
    names = list(NEAR)
    left, right = {}, {}
    for number, pixels in enumerate(originals):
        rng = np.random.default_rng(10_000 + number)
        left[f"{number}"] = pixels
        right[f"{number} {names[number // len(KINDS) % len(names)]}"] = NEAR[names[number // len(KINDS) % len(names)]](
            pixels, rng
        )
    # as many that have no twin on the other side
    for number in range(PAIRS, 2 * PAIRS):
        right[f"{number} stranger"] = KINDS[number % len(KINDS)](np.random.default_rng(number))
    found = found_pairs(matches(part_of(left), part_of(right)))
    planted = {(name.split()[0], name) for name in right if not name.endswith("stranger")}
    missed = Counter(pair[1].split()[1] for pair in planted - found)
    assert len(planted & found) >= 0.95 * len(planted), missed
    false = found - planted
    assert len({right for _, right in false}) <= 0.01 * len(right), sorted(false)[:5]
    assert len(false) <= 0.01 * len(found)


def test_volumes_are_found_in_any_orientation_and_along_any_axis() -> None:
    count = 96 if os.environ.get("SEGFOUNDRY_SOAK") else 24
    left, right = {}, {}
    for number in range(count):
        rng = np.random.default_rng(number)
        voxels = volume(rng)
        left[f"{number}"] = list(voxels)
        order, flips = rng.permutation(3), rng.integers(0, 2, 3).astype(bool)
        turned = np.flip(np.transpose(voxels, order), np.flatnonzero(flips))
        right[f"{number} twin"] = [
            NEAR["window"](np.ascontiguousarray(one), np.random.default_rng(1)) for one in turned
        ]
        right[f"{number} stranger"] = list(volume(np.random.default_rng(1000 + number)))
    found = found_pairs([one for one in matches(part_of(left), part_of(right)) if one.kind == "volume"])
    planted = {(f"{number}", f"{number} twin") for number in range(count)}
    assert len(found & planted) >= 0.95 * count
    assert found <= planted


def test_a_picture_set_of_slices_finds_its_volume() -> None:
    voxels = volume(np.random.default_rng(5))
    pictures = {f"slice {number}": np.ascontiguousarray(voxels[number, ::-1]) for number in (6, 11)}
    found = matches(part_of({"volume": list(voxels)}), part_of(pictures))
    assert {(one.left["key"], one.right["group_id"]) for one in found} >= {
        ("d/volume/z0006", "slice 6"),
        ("d/volume/z0011", "slice 11"),
    }


def test_pictures_that_show_nothing_are_no_twins() -> None:
    black = np.zeros((64, 64), dtype=np.uint8)
    left, right = part_of({"a": black, "b": [black] * 10}), part_of({"c": black, "d": [black] * 10, "e": black + 1})
    assert matches(left, right) == []


def test_tables_find_what_counting_all_pairs_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    from preprocessing import near

    rng = np.random.default_rng(3)
    left = rng.integers(0, 2**63, (3000, 2)).astype(np.uint64)
    left[:, 1] &= np.uint64(2**50 - 1)
    right = left[:1000].copy()
    flips = rng.integers(0, 64, (1000, 8))  # up to 8 bits of the first word
    for column in flips.T:
        right[:, 0] ^= np.uint64(1) << column.astype(np.uint64)
    groups = np.arange(3000), np.arange(1000) + 5000
    whole = {tuple(row) for row in candidates(left, right, groups, "picture").tolist()}
    monkeypatch.setattr(near, "_ALL_PAIRS", 0)
    some = {tuple(row) for row in candidates(left, right, groups, "picture").tolist()}
    assert some <= whole
    assert len(some) >= 0.97 * len(whole) >= 0.97 * 1000


def test_real_pictures_of_the_mirror(mirror: Path) -> None:
    files = []
    for folder, pattern in (
        ("CHASE_DB1", "*.jpg"), ("ISIC2017", "**/*.jpg"), ("Kvasir-SEG_mini/images", "*.jpg"), ("DSB2018", "**/*.png"),
    ):  # fmt: skip
        files += sorted((mirror / folder).glob(pattern))[:12]
    originals = {}
    for path in files:
        with Image.open(path) as image:
            image.thumbnail((512, 512))
            originals[str(path)] = np.asarray(image.convert("RGB"))
    assert len(originals) >= 30
    for name, change in NEAR.items():
        rng = np.random.default_rng(len(name))
        right = {f"{key} again": change(pixels, rng) for key, pixels in originals.items()}
        found = found_pairs(matches(part_of(dict(originals)), part_of(dict(right))))
        planted = {(key, f"{key} again") for key in originals}
        assert len(found & planted) >= 0.95 * len(planted), name
        assert len(found - planted) <= 0.01 * len(planted), name
