"""Large pictures come tile by tile, and put together again they are the picture."""

from __future__ import annotations

import json
import re
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from preprocessing.cards import Binary, ByValue, InstanceIds, Layout, Polygons, Tiles
from preprocessing.harmonize.case import CaseResult
from preprocessing.readers import tiles as reader
from tests.preprocessing.made import card_of, mask, masks, only, pixels, read
from tests.preprocessing.readers.test_polygons import imagescope

RNG = np.random.default_rng(5)
HEIGHT, WIDTH = 300, 420
COLOUR = RNG.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
LABEL = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
LABEL[100:180, 110:250] = 1
LABEL[190:200, 5:15] = 2


def origin(row: dict[str, Any]) -> tuple[int, int]:
    match = re.fullmatch(r"made/a/y(\d{6})x(\d{6})", row["sample_id"])
    assert match
    return int(match.group(1)), int(match.group(2))


def together(result: CaseResult, what: Any, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    whole = np.zeros(shape, dtype=dtype)
    for row in result.rows:
        y, x = origin(row)
        whole[y : y + row["height"], x : x + row["width"]] = what(row)
    return whole


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    return tmp_path


def layout(**said: Any) -> Layout:
    return Layout(image=r"images/(?P<case>\w+)\.\w+", label=r"masks/(?P<case>\w+)\.\w+", tiles=Tiles(**said))


@pytest.mark.parametrize(
    "how",
    [
        {"tile": (64, 48), "compression": "zlib", "predictor": True},
        {"tile": (64, 48), "planarconfig": "separate"},
        {"rowsperstrip": 32, "compression": "lzw"},
        {"rowsperstrip": 32, "bigtiff": True},
        {},
        "png",
    ],
)
def test_tiles_put_together_are_the_picture(root: Path, how: Any) -> None:
    if how == "png":
        Image.fromarray(COLOUR).save(root / "images/a.png")
        Image.fromarray(LABEL).save(root / "masks/a.png")
    else:
        stored = np.moveaxis(COLOUR, 2, 0) if how.get("planarconfig") else COLOUR
        tifffile.imwrite(root / "images/a.tif", stored, photometric="rgb", **how)
        grey = {name: value for name, value in how.items() if name not in ("planarconfig", "predictor")}
        tifffile.imwrite(root / "masks/a.tif", LABEL, photometric="minisblack", **grey)
    card = card_of(ByValue({1: "tumour", 2: "vessel"}), layout(size_px=100), searched=("vessel", "necrosis"))
    result = only(read(card, root))
    assert [origin(row) for row in result.rows] == [(y, x) for y in (0, 100, 200) for x in (0, 100, 200, 300, 400)]
    assert np.array_equal(together(result, pixels, COLOUR.shape, np.uint8), COLOUR)
    for concept, value in (("tumour", 1), ("vessel", 2)):
        found = together(result, lambda row, c=concept: mask(row, c), LABEL.shape, bool)
        assert np.array_equal(found, np.equal(LABEL, value))
    assert result.rows[0]["absent"] == ["necrosis", "tumour", "vessel"]
    assert json.loads(result.columns["source_voxels"]) == {"tumour": 80 * 140, "vessel": 100}
    assert result.columns["original_size_xyz"] == [WIDTH, HEIGHT]


def pyramid(path: Path, image: np.ndarray, photometric: str, mpp: float) -> None:
    with tifffile.TiffWriter(path) as writer:
        said = {"tile": (64, 64), "photometric": photometric, "compression": "zlib"}
        per_cm = 10_000 / mpp
        writer.write(image, subifds=2, resolution=(per_cm, per_cm), resolutionunit="CENTIMETER", **said)
        for step in (2, 4):
            writer.write(image[::step, ::step], subfiletype=1, **said)


@pytest.mark.parametrize(("said", "step"), [({"level": 0}, 1), ({"level": 2}, 4), ({"mpp": 0.52}, 2), ({"mpp": 1}, 4)])
def test_a_level_of_the_pyramid(root: Path, said: dict[str, Any], step: int) -> None:
    pyramid(root / "images/a.tif", COLOUR, "rgb", 0.25)
    pyramid(root / "masks/a.tif", LABEL, "minisblack", 0.25)
    result = only(read(card_of(ByValue({1: "tumour", 2: "vessel"}), layout(size_px=128, **said)), root))
    expected = COLOUR[::step, ::step]
    assert np.array_equal(together(result, pixels, expected.shape, np.uint8), expected)
    found = together(result, lambda row: mask(row, "tumour"), expected.shape[:2], bool)
    assert np.array_equal(found, LABEL[::step, ::step] == 1)
    assert result.rows[0]["spacing_mm_yx"] == pytest.approx([0.25 * step / 1000] * 2)
    record = json.loads(result.columns["intensity"])["tiles"]
    assert (record["scale"], record["mpp"]) == (step, pytest.approx(0.25))


@pytest.mark.parametrize(("said", "reason"), [({"mpp": 8.0}, "resolution"), ({"level": 3}, "resolution")])
def test_a_level_that_is_not_there_is_refused(root: Path, said: dict[str, Any], reason: str) -> None:
    pyramid(root / "images/a.tif", COLOUR, "rgb", 0.25)
    pyramid(root / "masks/a.tif", LABEL, "minisblack", 0.25)
    (result,) = read(card_of(ByValue({1: "a", 2: "b"}), layout(size_px=128, **said)), root).values()
    assert result.refusal is not None
    assert (result.refusal["reason"], result.refusal["file"]) == (reason, "images/a.tif")


def test_polygons_of_a_slide_and_glass_that_is_left_out(root: Path) -> None:
    glass = np.full((HEIGHT, WIDTH, 3), 240, dtype=np.uint8)
    glass[100:200, 100:300] = COLOUR[100:200, 100:300]
    pyramid(root / "images/a.tif", glass, "rgb", 0.5)
    box = [(110.0, 120.0), (250.0, 120.0), (250.0, 180.0), (110.0, 180.0)]
    (root / "masks/a.xml").write_text(imagescope(("0", box, "0")))
    card = card_of(Polygons({"": "tumour"}), layout(size_px=50, level=1, blank_range=3), instances="values")
    result = only(read(card, root))
    expected = np.zeros((150, 210), dtype=bool)
    expected[60:90, 55:125] = True
    assert np.array_equal(together(result, lambda row: mask(row, "tumour"), expected.shape, bool), expected)
    said = json.loads(result.columns["intensity"])["tiles"]
    assert len(result.rows) + said["blank"] == 3 * 5
    assert [origin(row) for row in result.rows] == [(50, 50), (50, 100)]


def test_instances_and_sizes_that_do_not_fit(root: Path) -> None:
    tifffile.imwrite(root / "images/a.tif", COLOUR, photometric="rgb", tile=(64, 64))
    numbered = np.zeros((HEIGHT, WIDTH), dtype=np.uint16)
    numbered[10:20, 10:20], numbered[30:40, 10:20] = 700, 701
    tifffile.imwrite(root / "masks/a.tif", numbered, tile=(64, 64))
    card = card_of(InstanceIds("gland"), layout(size_px=100), instances="values")
    assert [int(part.sum()) for part in masks(only(read(card, root)).rows[0], "gland")] == [100, 100]
    tifffile.imwrite(root / "masks/a.tif", numbered[:-1], tile=(64, 64))
    (result,) = read(card, root).values()
    assert result.refusal is not None
    assert (result.refusal["reason"], result.refusal["file"]) == ("mask_size", "masks/a.tif")


def test_memory_is_that_of_a_tile_and_not_of_the_slide(root: Path) -> None:
    side = 8192
    path = root / "images/a.tif"

    def blocks() -> Any:
        for number in range((side // 512) ** 2):
            yield np.full((512, 512), number % 251, dtype=np.uint8)

    tifffile.imwrite(path, blocks(), shape=(side, side), dtype=np.uint8, tile=(512, 512), compression="zlib",
                     photometric="minisblack")  # fmt: skip
    with reader.open_slide(path) as slide:
        tracemalloc.start()
        for number, (y, x) in enumerate(reader.origins(side, side, 512)):
            assert int(slide.read(0, y, x, 512, 512, "colour")[100, 100]) == number % 251
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 8 << 20  # of 64 MiB of pixels


def test_a_mask_beside_a_slide_may_be_a_plain_picture(root: Path) -> None:
    tifffile.imwrite(root / "images/a.tif", COLOUR, photometric="rgb", tile=(64, 64))
    Image.fromarray((LABEL == 1).astype(np.uint8) * 255).save(root / "masks/a.png")
    result = only(read(card_of(Binary("tumour"), layout(size_px=128)), root))
    assert np.array_equal(together(result, lambda row: mask(row, "tumour"), LABEL.shape, bool), LABEL == 1)
