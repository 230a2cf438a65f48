"""A proposed card, its TODOs filled in, reads the folder it was made for: pairs, rule and groups."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray
from PIL import Image

from infra.errors import UsageError
from preprocessing.check import check
from preprocessing.propose import propose
from preprocessing.yaml_card import read_card
from tests.made_dicom import phantom, series, structure_set

NOISE = np.random.default_rng(11)


def photo(path: Path, colour: bool = True) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    smooth = np.add.outer(np.arange(48), np.arange(64)).astype(np.uint8)
    pixels = smooth + NOISE.integers(0, 100, (48, 64), dtype=np.uint8)
    Image.fromarray(np.dstack([pixels, pixels // 2, pixels // 3]) if colour else pixels).save(path)


def drawn(path: Path, pixels: NDArray[np.uint8], **options: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def disc(value: int = 255, at: int = 20) -> NDArray[np.uint8]:
    y, x = np.mgrid[:48, :64]
    return np.where((y - 24) ** 2 + (x - at) ** 2 < 100, value, 0).astype(np.uint8)


def volume(path: Path, pixels: NDArray[np.generic]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(pixels), str(path))


def scan(low: int) -> NDArray[np.int16]:
    body = NOISE.uniform(0, 400, (6, 24, 20))
    return np.where(np.arange(24)[:, None] > 20, low, body).astype(np.int16)


def two_values() -> NDArray[np.uint8]:
    made = np.zeros((6, 24, 20), np.uint8)
    made[2:5, 4:12, 4:9] = 1
    made[2:5, 12:18, 4:9] = 2
    return made


def sibling_folders(root: Path) -> None:
    for patient in range(5):
        for frame in range(2):
            photo(root / "images" / f"p{patient}_{frame}.png")
            drawn(root / "masks" / f"p{patient}_{frame}.png", disc())
    (root / "readme of ours.txt").write_text("x", encoding="utf-8")


def one_folder_with_suffix(root: Path) -> None:
    for number in range(6):
        photo(root / f"{number:03d}.jpg")
        drawn(root / f"{number:03d}_mask.png", disc())


def jpeg_masks(root: Path) -> None:
    for number in range(6):
        photo(root / "Original" / f"{number}.jpg")
        drawn(root / "Ground Truth" / f"{number}.jpg", disc(), quality=90)


def colours(root: Path) -> None:
    for number in range(6):
        photo(root / "train" / "images" / f"f{number}.png")
        mask = np.zeros((48, 64, 3), np.uint8)
        mask[..., number % 2] = disc()
        drawn(root / "train" / "labels" / f"f{number}.png", mask)


def numbered_objects(root: Path) -> None:
    for number in range(6):
        photo(root / "img" / f"t{number}.png", colour=False)
        mask = np.zeros((48, 64), np.uint8)
        for index in range(6 + number):
            mask[4 * (index % 10) : 4 * (index % 10) + 3, 5 * index : 5 * index + 4] = index + 1
        drawn(root / "ids" / f"t{number}.png", mask)


def a_file_an_object(root: Path) -> None:
    for number in range(4):
        photo(root / f"c{number}" / "images" / f"c{number}.png")
        for index in range(3):
            drawn(
                root / f"c{number}" / "masks" / f"{number}{index}x{NOISE.integers(1 << 40)}.png",
                disc(at=12 + 20 * index),
            )


def patients_in_folders(root: Path) -> None:
    for patient in range(4):
        for frame in range(3):
            photo(root / f"pat{patient}" / "images" / f"{frame}.png")
            drawn(root / f"pat{patient}" / "masks" / f"{frame}.png", disc())


def decathlon(root: Path) -> None:
    for number in range(4):
        volume(root / "imagesTr" / f"liver_{number}.nii.gz", scan(-1000))
        volume(root / "labelsTr" / f"liver_{number}.nii.gz", two_values())
    labels = {"0": "background", "1": "Liver", "2": "Liver Tumour"}
    (root / "dataset.json").write_text(json.dumps({"labels": labels}), encoding="utf-8")


def nnunet(root: Path) -> None:
    for number in range(4):
        volume(root / "imagesTr" / f"case_{number}_0000.nii.gz", scan(300))
        volume(root / "labelsTr" / f"case_{number}.nii.gz", two_values())


def sequences(root: Path) -> None:
    for number in range(4):
        for name in ("t1", "t1ce", "flair")[: 2 if number == 3 else 3]:
            volume(root / f"g{number}" / f"g{number}_{name}.nii.gz", scan(300))
        volume(root / f"g{number}" / f"g{number}_seg.nii.gz", two_values())


def case_folders(root: Path) -> None:
    for number in range(4):
        volume(root / f"s{number}" / "t1.nii.gz", scan(300))
        volume(root / f"s{number}" / "seg.nii.gz", two_values())


def two_parts(root: Path) -> None:
    for part in ("Dataset 1", "Dataset 2"):
        for number in range(4):
            photo(root / part / f"{number}.bmp")
            drawn(root / part / f"{number}.png", np.where(disc(at=50) > 0, 128, disc()).astype(np.uint8))


def organs(root: Path) -> None:
    for number in range(3):
        volume(root / f"s{number}" / "ct.nii.gz", scan(-1000))
        for part in ("liver", "left kidney"):
            volume(root / f"s{number}" / "segmentations" / f"{part}.nii.gz", (two_values() == 1).astype(np.uint8))


def coco_folders(root: Path) -> None:
    for split in ("train", "val"):
        for number in range(3):
            photo(root / split / "images" / f"{number}.png")
        images = [{"id": n, "file_name": f"{n}.png", "height": 48, "width": 64} for n in range(3)]
        drawn = [{"id": n, "image_id": n, "category_id": 1, "iscrowd": 0, "area": 100, "bbox": [5, 5, 10, 10],
                  "segmentation": [[5, 5, 15, 5, 15, 15, 5, 15]]} for n in range(3)]  # fmt: skip
        said = {"images": images, "annotations": drawn, "categories": [{"id": 1, "name": "Stent"}]}
        (root / split / "annotations.json").write_text(json.dumps(said), encoding="utf-8")


def dicom_rtstruct(root: Path) -> None:
    series(root / "p1" / "CT", phantom())
    square = np.array([[-8, 21, 9], [-5, 21, 9], [-5, 24, 9], [-8, 24, 9]], dtype=float)
    structure_set(root / "p1" / "RT" / "1.dcm", {"Bladder": [square]})


LAYOUTS: list[tuple[Callable[[Path], None], str, int, int, list[str]]] = [
    # layout, kind of the rule, cases, groups, words
    (sibling_folders, "Binary", 10, 5, ['group: "{group}_*"', '"**/*.txt"']),
    (one_folder_with_suffix, "Binary", 6, 6, ["{case}_mask.png"]),
    (jpeg_masks, "Binary", 6, 6, ["grey noise of JPEG"]),
    (colours, "ByColour", 6, 6, ["'#ff0000'", "'#00ff00'", "{split}"]),
    (numbered_objects, "InstanceIds", 6, 6, ["instances: values"]),
    (a_file_an_object, "Binary", 4, 4, ["instances: files"]),
    (patients_in_folders, "Binary", 12, 4, ["{group}/images/{case}.png"]),
    (decathlon, "ByValue", 4, 4, ["1: liver  #", "2: liver tumour", "modality: CT"]),
    (nnunet, "ByValue", 4, 4, ["_0000.nii.gz", "rule: percentile"]),
    (sequences, "ByValue", 11, 4, ["{case}/{case}_{flair,t1,t1ce}.nii.gz", "each_image: true"]),
    (case_folders, "ByValue", 4, 4, ["{case}/t1.nii.gz"]),
    (two_parts, "ByValue", 8, 8, ["{within}/{case}.bmp"]),
    (organs, "ByFile", 3, 3, ["{case}/segmentations/{part}.nii.gz", "TODO left kidney"]),
    (coco_folders, "Coco", 6, 6, ["{within=train}/images/{case}.png", "'stent'"]),
    (dicom_rtstruct, "Contours", 1, 1, ["modality: CT", "**/CT/*", "'bladder'"]),
]


def filled(text: str) -> str:
    """What a person would write for the TODOs, each structure under a name of its own."""
    number = iter(range(100))
    text = re.sub(r"(?<=concept: )TODO", "structure", text)
    text = re.sub(r"(?<=: )TODO(?=  #| [a-z ]+  #)", lambda _: f"structure {next(number)}", text)
    return re.sub(r"(?m)^modality: TODO", "modality: test", text)


@pytest.mark.parametrize(
    ("make", "kind", "cases", "groups", "words"), LAYOUTS, ids=lambda each: getattr(each, "__name__", "")
)
def test_the_proposal_reads_its_folder(
    make: Callable[[Path], None], kind: str, cases: int, groups: int, words: list[str], tmp_path: Path
) -> None:
    root = tmp_path / "my data (1)"
    root.mkdir()
    make(root)
    text = propose(root)
    for word in words:
        assert word in text, text
    path = tmp_path / "card.yaml"
    path.write_text(filled(text), encoding="utf-8")
    card = read_card(path).card
    assert card.name == "my_data_1"
    assert type(card.labels).__name__ == kind, text
    found = check(card, root)
    assert found["ok"], (text, found["problems"])
    assert (found["cases_kept"], found["groups"]) == (cases, groups), text
    assert all(found["objects"].values())


def test_what_only_a_person_knows_is_left_open_and_refused(tmp_path: Path) -> None:
    sibling_folders(tmp_path)
    path = tmp_path / "card.yaml"
    path.write_text(propose(tmp_path), encoding="utf-8")
    with pytest.raises(UsageError, match="expected a concept in plain lower-case words, found 'TODO'"):
        read_card(path)


def test_a_folder_without_pairs_gets_no_made_up_ones(tmp_path: Path) -> None:
    for number in range(5):
        photo(tmp_path / "a" / f"{number}.png")
        photo(tmp_path / "b" / f"{number}.png")
    (tmp_path / "broken.nii.gz").write_bytes(b"no volume")
    assert "No image was found with a label of the same name" in propose(tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "Here are nothing" in propose(empty)
