"""Masks cut out to their boxes go back to where the table says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from preprocessing.cards import DatasetCard, Layout, Sprites
from tests.preprocessing.made import card_of, mask, masks, read

HEAD = "Filename,Mask,Template Name,Top,Left\n"


def card() -> DatasetCard:
    columns = {"image": "Filename", "mask": "Mask", "label": "Template Name", "left": "Left", "top": "Top"}
    rule = Sprites({"left lung": "left lung", "opacity": "opacity"}, ignore=("tube",), **columns)
    layout = Layout(image=r"images/(?P<case>\w+)\.png", label=r"structure\.csv")
    return card_of(rule, layout, searched=("left lung",), instances="values")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for name in ("a", "b", "untold"):
        Image.fromarray(np.zeros((40, 50), dtype=np.uint8)).save(tmp_path / f"images/{name}.png")
    sprite = np.zeros((10, 12, 4), dtype=np.uint8)
    sprite[..., 3] = 255
    sprite[2:8, 3:9, :3] = (255, 124, 33)
    Image.fromarray(sprite).save(tmp_path / "masks/one.png")
    return tmp_path


def test_sprites_are_placed(root: Path) -> None:
    rows = ["a.png,masks/one.png,Left Lung,5,20", "a.png,masks/one.png,Opacity,0,0", "a.png,masks/one.png,Opacity,9,9"]
    rows += ["b.png,,Tube,0,0", "gone.png,masks/one.png,Opacity,0,0"]
    (root / "structure.csv").write_text(HEAD + "\n".join(rows))
    results = read(card(), root)
    row = results["a"].rows[0]
    expected = np.zeros((40, 50), dtype=bool)
    expected[7:13, 23:29] = True
    assert np.array_equal(mask(row, "left lung"), expected)
    assert [int(part.sum()) for part in masks(row, "opacity")] == [36, 36]
    assert results["b"].rows[0]["absent"] == ["left lung"]
    refused = {name: result.refusal["reason"] for name, result in results.items() if result.refusal}
    assert refused == {"structure_gone.png": "image_missing", "untold": "label_missing"}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("a.png,masks/one.png,Left Lung,35,20", "mask_size"),
        ("a.png,masks/two.png,Left Lung,5,20", "label_missing"),
        ("a.png,../secret.png,Left Lung,5,20", "label_missing"),
        ("a.png,masks/one.png,Heart,5,20", "unknown_label"),
        ("a.png,masks/one.png,Left Lung,high,20", "unreadable"),
    ],
)
def test_a_row_that_cannot_be_placed_refuses_its_picture(root: Path, row: str, reason: str) -> None:
    (root / "structure.csv").write_text(f"{HEAD}{row}\n")
    refusal = read(card(), root)["a"].refusal
    assert refusal is not None
    assert refusal["reason"] == reason
