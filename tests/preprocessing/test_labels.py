"""Outlines that are to be filled, and files of one structure each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from infra.errors import CaseError
from preprocessing.cards import ByFile, ByValue, Layout, Outline
from preprocessing.harmonize.labels import masks_of
from tests.preprocessing.made import card_of, mask, masks, only, read

HEIGHT, WIDTH = 540, 800


def ellipse(box: tuple[float, float, float, float], width: int = 1, closed: bool = True) -> np.ndarray:
    picture = Image.new("L", (WIDTH, HEIGHT))
    draw = ImageDraw.Draw(picture)
    if closed:
        draw.ellipse(box, outline=255, width=width)
    else:
        draw.arc(box, 20, 330, fill=255, width=width)
    return np.asarray(picture)


def solid(box: tuple[float, float, float, float]) -> np.ndarray:
    picture = Image.new("L", (WIDTH, HEIGHT))
    ImageDraw.Draw(picture).ellipse(box, fill=255, outline=255)
    return np.asarray(picture) > 0


@pytest.mark.parametrize("width", [1, 5])
@pytest.mark.parametrize(
    "box",
    [
        (200, 100, 600, 400),
        (-150, 100, 400, 400),  # cut by the left edge
        (200, -100, 600, 300),  # by the upper edge
        (300, 200, 1000, 700),  # by a corner
        (-200, 60, 1000, 480),  # larger than the picture is wide: two arcs
    ],
)
def test_an_outline_is_filled(box: tuple[float, float, float, float], width: int) -> None:
    found = masks_of(ellipse(box, width), Outline("fetal head"))["fetal head"]
    expected = solid(box)
    assert np.array_equal(found, expected) or (found ^ expected).sum() <= 0.002 * expected.sum()


def test_two_outlines_and_none() -> None:
    two = np.maximum(ellipse((50, 50, 250, 250)), ellipse((400, 100, 700, 400)))
    found = masks_of(two, Outline("head"))["head"]
    assert np.array_equal(found, solid((50, 50, 250, 250)) | solid((400, 100, 700, 400)))
    assert not masks_of(np.zeros_like(two), Outline("head"))["head"].any()


def test_a_line_that_encloses_nothing_is_refused() -> None:
    with pytest.raises(CaseError, match="outline"):
        masks_of(ellipse((200, 100, 600, 400), closed=False), Outline("head"))
    straight = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    straight[100, 100:300] = 255
    with pytest.raises(CaseError, match="outline"):
        masks_of(straight, Outline("head"))


@pytest.mark.parametrize("bright", [1, 7, 255])
def test_one_file_a_structure(tmp_path: Path, bright: int) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    Image.fromarray(np.eye(40, dtype=np.uint8)).save(tmp_path / "images/06.png")
    kidneys = {"left+kidney": (2, 12), "right+kidney": (20, 30), "kidney": (2, 30)}
    boxes = {**kidneys, "lesion_0": (5, 6), "lesion_1": (8, 9)}
    for part, (start, stop) in boxes.items():
        marked = np.zeros((40, 40), dtype=np.uint8)
        marked[start:stop, 5:9] = bright
        Image.fromarray(marked).convert("RGBA" if bright == 255 else "L").save(tmp_path / f"masks/06_CT_{part}.png")
    layout = Layout(
        image=r"images/(?P<case>\d+)\.png", label=r"masks/(?P<case>\d+)_CT_(?P<part>[a-z+]+)(_\d)?\.png"
    )  # fmt: skip
    names = {"left+kidney": "left kidney", "right+kidney": "right kidney", "lesion": "lesion"}
    row = only(read(card_of(ByFile(names, ignore=("kidney",)), layout, instances="files"), tmp_path)).rows[0]
    assert {each["concept"] for each in row["objects"]} == {"left kidney", "right kidney", "lesion"}
    assert len(masks(row, "lesion")) == 2
    assert mask(row, "left kidney")[2:12, 5:9].all()
    assert mask(row, "left kidney").sum() == 40


@pytest.mark.parametrize("tolerance", [0, 1])
def test_values_to_ignore_and_a_background_that_is_not_zero_are_no_class(tolerance: int) -> None:
    label = np.array([[9, 9, 40], [20, 20, 255], [40, 30, 9]], dtype=np.uint8)
    rule = ByValue({20: "liver", 30: "liver", 40: "spleen", 700: "lung"}, tolerance, background=9, ignore=(255, 9))
    found = masks_of(label, rule)
    assert list(found) == ["liver", "spleen", "lung"]
    assert np.array_equal(found["liver"], (label == 20) | (label == 30))
    assert np.array_equal(found["spleen"], label == 40)
    assert not found["lung"].any()
    label[0, 0] = 100
    with pytest.raises(CaseError, match=r"values 9, (9, )?20, 30, 40, (9, )?255.*found values 100"):
        masks_of(label, rule)


def test_a_code_with_two_meanings_hides_no_unknown_value() -> None:
    label = np.array([[0, 0, 7]], dtype=np.uint8)
    for rule in (ByValue({0: "liver"}), ByValue({1: "liver", 0: "lesion"}, ignore=(0,))):
        with pytest.raises(CaseError, match="found values 7"):
            masks_of(label, rule)
