"""Volumes out of arrays and pages: voxels and masks stay where they are, with or without a geometry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile

from preprocessing.cards import Binary, ByChannel, ByFile, ByValue, DatasetCard, InstanceIds, Layout
from preprocessing.harmonize.case import CaseResult
from preprocessing.harmonize.geometry import to_original_grid
from tests.preprocessing.made import WIDE, card_of, mask, masks, only, pixels, read

RNG = np.random.default_rng(13)
SHAPE = (5, 14, 18)
VOXELS = RNG.integers(0, 256, SHAPE, dtype=np.uint8)
LABEL = np.zeros(SHAPE, dtype=np.uint16)
LABEL[1:3, 2:6, 3:9] = 1000
LABEL[2:4, 8:12, 3:9] = 1001
PAIR = Layout(image=r"images/(?P<case>\w+)\.\w+", label=r"masks/(?P<case>\w+)\.\w+", axes="zyx")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    return tmp_path


def put(path: Path, kind: str, array: np.ndarray) -> None:
    if kind == "tif":
        tifffile.imwrite(path, array, photometric="minisblack", compression="zlib")
    elif kind == "npy":
        np.save(path, array)
    else:
        with h5py.File(path, "w") as file:
            file["main"] = array


def stacked(result: CaseResult, what: Any) -> np.ndarray:
    return np.stack([what(row) for row in result.rows])


@pytest.mark.parametrize("kind", ["tif", "npy", "h5"])
def test_a_stack_is_a_volume_without_spacing_and_its_instances_are_numbered(root: Path, kind: str) -> None:
    put(root / f"images/a.{kind}", kind, VOXELS)
    put(root / f"masks/a.{kind}", kind, LABEL)
    result = only(read(card_of(InstanceIds("cell nucleus"), PAIR, instances="values"), root))
    assert [row["sample_id"] for row in result.rows] == [f"made/a/z{index:04d}" for index in range(5)]
    assert np.array_equal(stacked(result, pixels), VOXELS)
    assert np.array_equal(stacked(result, lambda row: mask(row, "cell nucleus")), LABEL > 0)
    assert [len(masks(row, "cell nucleus")) for row in result.rows] == [0, 1, 2, 1, 0]
    assert {row["spacing_mm_yx"] for row in result.rows} == {None}
    assert result.rows[0]["absent"] == ["cell nucleus"]
    assert result.columns["original_spacing_mm_xyz"] is None
    assert result.columns["original_size_xyz"] == list(SHAPE[::-1])
    assert np.array_equal(to_original_grid(LABEL > 0, result.columns), LABEL > 0)


def test_the_card_knows_the_spacing(root: Path) -> None:
    put(root / "images/a.h5", "h5", VOXELS)
    put(root / "masks/a.h5", "h5", (LABEL == 1000).astype(np.uint8))
    layout = Layout(image=PAIR.image, label=PAIR.label, image_key="main", spacing_mm_zyx=(0.5, 0.2, 0.3))
    result = only(read(card_of(ByValue({1: "cell nucleus"}), layout), root))
    assert result.columns["original_spacing_mm_xyz"] == pytest.approx([0.3, 0.2, 0.5])
    assert result.rows[0]["spacing_mm_yx"] == pytest.approx([0.2, 0.3])
    assert np.array_equal(stacked(result, lambda row: mask(row, "cell nucleus")), LABEL == 1000)


def medsam(path: Path, direction: list[float]) -> DatasetCard:
    np.savez_compressed(
        path, imgs=VOXELS, gts=(LABEL == 1001).astype(np.uint8), spacing=[0.4, 0.3, 2.0], origin=[1.0, 2.0, 3.0],
        direction=direction,
    )  # fmt: skip
    keys = {"spacing": "spacing", "origin": "origin", "direction": "direction"}
    layout = Layout(image=r"(?P<case>\w+)\.npz", image_key="imgs", label_key="gts", geometry_keys=keys)
    return card_of(ByValue({1: "lesion"}), layout)


def test_the_file_knows_its_geometry_as_in_medsam(root: Path) -> None:
    result = only(read(medsam(root / "a.npz", [-1.0, 0, 0, 0, 1.0, 0, 0, 0, -1.0]), root))
    # right to left and foot to head in LPS: x and z are turned round
    assert np.array_equal(stacked(result, pixels), VOXELS[::-1, :, ::-1])
    found = stacked(result, lambda row: mask(row, "lesion"))
    assert np.array_equal(to_original_grid(found, json.loads(json.dumps(result.columns))), LABEL == 1001)
    assert result.rows[0]["spacing_mm_yx"] == [0.3, 0.4]
    assert json.loads(result.columns["source_voxels"]) == {"lesion": int((LABEL == 1001).sum())}


def test_a_direction_that_is_none_is_refused(root: Path) -> None:
    (result,) = read(medsam(root / "a.npz", [1.0, 0, 0, 1.0, 0, 0, 0, 0, 1.0]), root).values()
    assert result.refusal is not None
    assert result.refusal["reason"] == "spacing"


def test_channels_of_a_volume_and_a_file_a_structure(root: Path) -> None:
    np.save(root / "images/a.npy", VOXELS)
    np.save(root / "masks/a.npy", np.stack([LABEL == 1000, LABEL == 1001]))
    layout = Layout(image=PAIR.image, label=PAIR.label, axes="zyx", label_axes="czyx")
    result = only(read(card_of(ByChannel({0: "liver", 1: "spleen"}), layout), root))
    for concept, value in (("liver", 1000), ("spleen", 1001)):
        assert np.array_equal(stacked(result, lambda row, c=concept: mask(row, c)), np.equal(LABEL, value))
    for part, value in (("liver", 1000), ("spleen", 1001)):
        np.save(root / f"masks/a_{part}.npy", np.equal(LABEL, value).astype(np.uint8) * 7)
    (root / "masks/a.npy").unlink()
    layout = Layout(image=PAIR.image, label=r"masks/(?P<case>[a-z])_(?P<part>\w+)\.npy", axes="zyx")
    result = only(read(card_of(ByFile({"liver": "liver", "spleen": "spleen"}), layout), root))
    for concept, value in (("liver", 1000), ("spleen", 1001)):
        assert np.array_equal(stacked(result, lambda row, c=concept: mask(row, c)), np.equal(LABEL, value))


def test_pages_may_be_pictures_of_their_own(root: Path) -> None:
    tifffile.imwrite(root / "images/a.tif", VOXELS, photometric="minisblack")
    tifffile.imwrite(root / "masks/a.tif", (LABEL > 0).astype(np.uint8) * 255, photometric="minisblack")
    layout = Layout(image=PAIR.image, label=PAIR.label, stacked=True)
    results = read(card_of(Binary("membrane", inverted=True), layout), root)
    assert list(results) == [f"a_{index:05d}" for index in range(5)]
    for index, result in enumerate(results.values()):
        assert np.array_equal(pixels(result.rows[0]), VOXELS[index])
        assert np.array_equal(mask(result.rows[0], "membrane"), LABEL[index] == 0)


@pytest.mark.parametrize(
    ("image", "label", "reason", "file"),
    [
        (VOXELS, LABEL[:4], "mask_size", "masks/a.npy"),
        (VOXELS[0], LABEL, "dimensions", "images/a.npy"),
        (np.stack([VOXELS] * 3, axis=-1), LABEL, "dimensions", "images/a.npy"),
        (VOXELS.astype(np.complex64), LABEL, "unreadable", "images/a.npy"),
        (np.full(SHAPE, np.nan, dtype=np.float32), LABEL, "intensity", "images/a.npy"),
        (VOXELS, LABEL + np.float32(0.5), "unknown_label", "masks/a.npy"),
    ],
)
def test_what_does_not_fit_is_refused(root: Path, image: Any, label: Any, reason: str, file: str) -> None:
    np.save(root / "images/a.npy", image)
    np.save(root / "masks/a.npy", label)
    (result,) = read(card_of(InstanceIds("cell nucleus"), PAIR, intensity=WIDE), root).values()
    assert result.refusal is not None
    assert (result.refusal["reason"], result.refusal["file"]) == (reason, file)
