"""Volumes that are sound though odd are read; those that show nothing are refused with a reason."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray

from preprocessing.cards import ByValue, DatasetCard, Intensity, Layout, Licence, RawCase
from preprocessing.harmonize.case import CaseItem, CaseResult, process

CARD = DatasetCard(
    name="odd",
    title="Odd",
    modality="MR",
    licence=Licence("none"),
    citation="nobody",
    homepage="https://example.org",
    layout_checked="made here",
    layouts=(Layout(image=r"(?P<case>image)\..+", label=r"(?P<case>label)\..+"),),
    labels=ByValue({1: "liver", 2: "liver tumour"}),
    intensity=Intensity("percentile"),
)
SHAPE = (9, 12, 10)


def voxels(shape: tuple[int, ...] = SHAPE, dtype: Any = np.int16) -> NDArray[Any]:
    return np.random.default_rng(0).normal(100, 20, shape).astype(dtype)


def marks(shape: tuple[int, ...] = SHAPE, dtype: Any = np.uint8) -> NDArray[Any]:
    label = np.zeros(shape, dtype)
    label[2:5, 1:6, 1:3] = 1
    label[5, 2:4, 1] = 2
    return label


def run(root: Path, image: NDArray[Any], label: NDArray[Any]) -> CaseResult:
    for name, array in (("image", image), ("label", label)):
        sitk.WriteImage(sitk.GetImageFromArray(array, isVector=False), str(root / f"{name}.nii.gz"))
    return process(item(root, ("image.nii.gz", "label.nii.gz")))


def item(root: Path, files: tuple[str, str], card: DatasetCard = CARD) -> CaseItem:
    from infra.storage import sha256_file

    case = RawCase("one", "one", files[:1], files[1:])
    return CaseItem(
        card=card,
        case=case,
        root=str(root),
        sha256={file: sha256_file(root / file) for file in files},
        orientation="LPS",
        min_object_area_px=1,
        shown_id="one",
        shown_files={file: file for file in files},
    )


def area(result: CaseResult) -> dict[str, int]:
    found: dict[str, int] = {}
    for row in result.rows:
        for each in row["objects"]:
            found[each["concept"]] = found.get(each["concept"], 0) + each["area"]
    return found


@pytest.mark.parametrize("shape", [(40, 12, 3), (9, 3, 3), (3, 12, 10), (9, 12, 4), (1, 12, 10)])
def test_three_voxels_along_x_are_no_colours(tmp_path: Path, shape: tuple[int, ...]) -> None:
    label = np.zeros(shape, np.uint8)
    label[..., 1:3, 1:3] = 1
    label[0, 1, 2] = 2
    result = run(tmp_path, voxels(shape), label)
    assert result.refusal is None
    assert area(result) == {"liver": int((label == 1).sum()), "liver tumour": 1}


def test_a_label_that_a_float_scale_moved_by_rounding_is_whole(tmp_path: Path) -> None:
    label = marks(dtype=np.float32)
    moved = np.where(label > 0, label * np.float32(1.0001), label)
    assert not np.array_equal(moved, label)
    assert area(run(tmp_path, voxels(), moved)) == {"liver": 30, "liver tumour": 2}
    half = run(tmp_path, voxels(), label * np.float32(0.4))
    assert half.refusal is not None
    assert half.refusal["reason"] == "unknown_label"


@pytest.mark.parametrize("packed", [True, False])
def test_a_nifti_is_read_by_what_is_in_it_and_not_by_its_ending(tmp_path: Path, packed: bool) -> None:
    expected = area(run(tmp_path, voxels(), marks()))
    name = "wrong.nii" if packed else "wrong.nii.gz"
    for each in ("image", "label"):
        content = (tmp_path / f"{each}.nii.gz").read_bytes()
        (tmp_path / f"{each}-{name}").write_bytes(content if packed else gzip.decompress(content))
    result = process(item(tmp_path, (f"image-{name}", f"label-{name}")))
    assert result.refusal is None
    assert area(result) == expected


@pytest.mark.parametrize("value", [np.nan, 0.0, 7.0])
def test_marks_on_an_image_of_one_value_are_refused(tmp_path: Path, value: float) -> None:
    result = run(tmp_path, np.full(SHAPE, value, np.float32), marks())
    assert result.refusal is not None
    assert result.refusal["reason"] == "blank"
