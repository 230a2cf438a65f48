"""Faults of labels: each is kept rightly or quarantined with its reason and file, and none becomes a wrong truth."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from preprocessing.cards import Binary, ByChannel, ByColour, ByFile, ByValue, Coco, DatasetCard, Intensity, Layout
from tests.preprocessing.made import card_of, read

Write = Callable[[Path], None]
HEIGHT, WIDTH = 24, 32
VALUES = ByValue({1: "liver", 2: "spleen"})
KIDNEYS = ByValue({1: "left kidney", 2: "right kidney"})
VOLUMES = Layout(image=r"images/(?P<case>\w+)\.nii", label=r"masks/(?P<case>\w+)\.nii")


def picture(array: np.ndarray, label: str = "a.png") -> Write:
    def write(root: Path) -> None:
        Image.fromarray(np.full((HEIGHT, WIDTH), 90, dtype=np.uint8)).save(root / "images/a.png")
        Image.fromarray(array).save(root / "masks" / label)

    return write


def volume(array: np.ndarray, origin: tuple[float, ...] = (0.0, 0.0, 0.0), flip: bool = False) -> Write:
    def write(root: Path) -> None:
        image = sitk.GetImageFromArray(np.arange(array.size, dtype=np.float32).reshape(array.shape))
        image.SetSpacing((2.0, 2.0, 5.0))
        label = sitk.GetImageFromArray(array)
        label.CopyInformation(image)
        label.SetOrigin(origin)
        if flip:  # stored the other way round, and the header says so: the same truth
            label = sitk.DICOMOrient(label, "RAI")
        sitk.WriteImage(image, str(root / "images/a.nii"))
        sitk.WriteImage(label, str(root / "masks/a.nii"))

    return write


def grey(**marks: int) -> np.ndarray:
    label = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    for place, value in enumerate(marks.values()):
        label[4:8, 4 + 8 * place : 8 + 8 * place] = value
    return label


def kidneys(left: int, right: int) -> np.ndarray:
    """In LPS the x index grows to the patient's left."""
    label = np.zeros((4, 20, 40), dtype=np.uint8)
    label[1:3, 8:14, 28:34] = left
    label[1:3, 8:14, 5:11] = right
    return label


def colours(*marks: tuple[int, int, int]) -> np.ndarray:
    label = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    for place, colour in enumerate(marks):
        label[4:8, 4 + 8 * place : 8 + 8 * place] = colour
    return label


def coco(category: str) -> Write:
    def write(root: Path) -> None:
        picture(grey())(root)
        (root / "masks/a.png").unlink()
        said = {
            "images": [{"id": 1, "file_name": "a.png", "width": WIDTH, "height": HEIGHT}],
            "categories": [{"id": 1, "name": category}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[1, 1, 9, 1, 9, 9, 1, 9]]}],
        }
        (root / "masks/all.json").write_text(json.dumps(said))

    return write


MR = card_of(KIDNEYS, VOLUMES, intensity=Intensity("percentile"))
SOUND = {
    "every value named": (picture(grey(a=1, b=2)), card_of(VALUES)),
    "an empty mask of a card that searched": (picture(grey()), card_of(VALUES, searched=("liver",))),
    "whole numbers stored as floats": (volume(kidneys(1, 2).astype(np.float32)), MR),
    "left and right where they belong": (volume(kidneys(1, 2)), MR),
    "stored the other way round": (volume(kidneys(1, 2), flip=True), MR),
}
FAULTY = {
    "unknown value": (picture(grey(a=1, b=7)), card_of(VALUES), "unknown_label"),
    "unknown colour": (
        picture(colours((255, 0, 0), (0, 0, 255))), card_of(ByColour((((255, 0, 0), "tool"),))), "unknown_label",
    ),
    "unknown file of a structure": (
        picture(grey(a=255), "a_heart.png"),
        card_of(
            ByFile({"liver": "liver"}),
            Layout(image=r"images/(?P<case>\w+)\.png", label=r"masks/(?P<case>[a-z])_(?P<part>\w+)\.png"),
        ),
        "unknown_label",
    ),
    "unknown category": (
        coco("heart"),
        card_of(Coco({"liver": "liver"}), Layout(image=r"images/(?P<case>\w+)\.png", label=r"masks/all\.json")),
        "unknown_label",
    ),
    "a mask with fractions": (
        volume(kidneys(1, 2).astype(np.float32) * np.float32(0.7)), MR, "unknown_label",
    ),
    "a mask with NaN": (
        volume(np.where(kidneys(1, 2) > 0, np.float32(np.nan), 0).astype(np.float32)),
        MR,
        "empty_label",  # the NIfTI library reads NaN as 0
    ),
    "an empty mask that says nothing": (picture(grey()), card_of(VALUES), "empty_label"),
    "left and right swapped": (volume(kidneys(2, 1)), MR, "sides"),
    "a mask of another size": (picture(grey(a=1, b=2)[:, :-1]), card_of(VALUES), "mask_size"),
    "a mask on another grid": (volume(kidneys(1, 2), (9.0, 0.0, 0.0)), MR, "mask_grid"),
    "a photograph instead of a mask": (
        picture(np.linspace(0, 255, HEIGHT * WIDTH).astype(np.uint8).reshape(HEIGHT, WIDTH)),
        card_of(Binary("polyp")),
        "unknown_label",
    ),
    "a mask without the channel": (picture(grey(a=1)), card_of(ByChannel({2: "liver"})), "unknown_label"),
}  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    return tmp_path


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_label_is_kept(root: Path, name: str) -> None:
    write, card = SOUND[name]
    write(root)
    (result,) = read(card, root).values()
    assert result.refusal is None
    assert any(row["objects"] or row["absent"] for row in result.rows)


@pytest.mark.parametrize("name", FAULTY)
def test_a_faulty_label_is_quarantined(root: Path, name: str) -> None:
    write, card, reason = FAULTY[name]
    _check(root, write, card, reason)


def _check(root: Path, write: Write, card: DatasetCard, reason: str) -> None:
    write(root)
    (result,) = read(card, root).values()
    assert result.rows == []
    assert result.refusal is not None
    assert result.refusal["reason"] == reason
    assert result.refusal["file"].startswith("masks/")
    assert result.refusal["expected"]
    assert result.refusal["found"]
