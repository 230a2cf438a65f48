"""Versions that differ are told apart; versions that differ by chance are not."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from preprocessing import schema
from preprocessing.fingerprint import FIGURES, MAJOR_SHIFT, drift, stability_index
from tests.preprocessing.pictures import Picture, windowed
from tests.preprocessing.test_build import FLAT, build
from tests.preprocessing.test_leakage import draw, picture


def of(folder: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((folder / schema.FINGERPRINT_FILE).read_text(encoding="utf-8"))
    return value


def version(tmp_path: Path, name: str, pictures: list[Picture]) -> dict[str, Any]:
    for number, pixels in enumerate(pictures):
        draw(tmp_path / name, f"case{number:03d}", pixels)
    build(FLAT, tmp_path / name, tmp_path / f"{name}_out")
    return of(tmp_path / f"{name}_out")


@pytest.fixture(scope="module")
def pictures() -> list[Picture]:
    return [picture(seed) for seed in range(60)]


def test_figures_are_what_the_pictures_are(pictures: list[Picture], tmp_path: Path) -> None:
    found = version(tmp_path, "a", pictures[:20])
    assert found["counts"] == {"samples": 20, "cases": 20, "groups": 20}
    assert set(found["figures"]) == set(FIGURES)
    figures = found["figures"]
    heights = [pixels.shape[0] for pixels in pictures[:20]]
    assert figures["height"]["p50"] == np.median(heights)
    assert sum(figures["height"]["counts"]) == 20
    assert figures["spacing_in_plane"]["missing"] == 20
    assert figures["spacing_in_plane"]["p50"] is None
    assert figures["mean"]["p50"] == pytest.approx(np.median([pixels.mean() for pixels in pictures[:20]]), abs=1)
    side = np.median([math.sqrt(15 * 24) / pixels.shape[0] for pixels in pictures[:20]])
    assert figures["object_side"]["p50"] == pytest.approx(side, rel=1e-4)
    assert found["concepts"] == {"polyp": {"samples": 20, "absent": 0, "objects": 20}}


def test_more_of_the_same_has_not_moved_and_other_exposure_has(pictures: list[Picture], tmp_path: Path) -> None:
    before = version(tmp_path, "a", pictures[:30])
    assert drift(before, before)["moved"] == []
    assert drift(before, version(tmp_path, "b", pictures))["moved"] == []
    dark = [(pixels // 4).astype(np.uint8) for pixels in pictures[30:]]
    moved = drift(before, version(tmp_path, "c", pictures[:10] + dark))
    assert {"mean", "contrast"} <= set(moved["moved"]) <= {"mean", "contrast", "height", "width"}
    figure = next(one for one in moved["figures"] if one["figure"] == "mean")
    assert figure["psi"] > figure["tolerance"] >= MAJOR_SHIFT
    assert figure["after"] < figure["before"]
    again = [windowed(pixels, np.random.default_rng(0)) for pixels in pictures[:30]]
    assert "object_side" not in drift(before, version(tmp_path, "d", again))["moved"]


def test_a_concept_that_comes_or_goes_has_moved(pictures: list[Picture], tmp_path: Path) -> None:
    before = version(tmp_path, "a", pictures[:5])
    after = json.loads(json.dumps(before))
    after["concepts"] = {"instrument": {"samples": 1, "absent": 0, "objects": 1}, **after["concepts"]}
    assert drift(before, after)["moved"] == ["instrument"]
    assert drift(after, before)["moved"] == ["instrument"]


def test_the_index_is_the_formula() -> None:
    before, after = np.array([90.0, 10.0, 0.0]), np.array([50.0, 50.0, 0.0])
    p, q = np.array([90.5, 10.5]) / 101, np.array([50.5, 50.5]) / 101
    index, tolerance = stability_index(before, after, (10_000, 10_000))
    assert index == pytest.approx(((q - p) * np.log(q / p)).sum())
    assert tolerance == MAJOR_SHIFT
    # chi-square with 1 degree of freedom has its 99th percentile at 6.635; the approximation is within 2 %
    assert stability_index(before, after, (20, 20))[1] == pytest.approx(6.635 * 2 / 20, rel=0.02)
    assert stability_index(before, before, (5, 5))[0] == 0
    assert stability_index(np.zeros(3), after, (0, 5)) == (0.0, MAJOR_SHIFT)


@pytest.mark.parametrize("groups", [8, 30, 200])
def test_chance_alone_rarely_moves_a_figure(groups: int) -> None:
    rng = np.random.default_rng(groups)
    shares = rng.dirichlet(np.ones(12))
    said = 0
    for _ in range(400):
        before, after = rng.multinomial(groups, shares), rng.multinomial(groups, shares)
        index, tolerance = stability_index(before.astype(float), after.astype(float), (groups, groups))
        said += index > tolerance
    assert said / 400 <= 0.03
