"""Harmonization keeps what is true: handedness, counts, values, colours, instances."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco

from infra.errors import CaseError
from preprocessing.cards import Binary, ByColour, ByValue, Intensity
from preprocessing.harmonize import geometry, slices
from preprocessing.harmonize.intensity import to_8bit
from preprocessing.harmonize.labels import masks_of
from preprocessing.readers import nifti_family, raster
from preprocessing.schema import rle

CODES = [
    "".join(code)
    for order in itertools.permutations(("LR", "AP", "IS"))
    for code in itertools.product(*order)
]  # fmt: skip


def phantom(code: str, oblique_deg: float = 0.0) -> sitk.Image:
    """An asymmetric volume stored with axes `code`: one bright voxel towards left, two towards posterior, three up."""
    array = np.zeros((7, 6, 5), dtype=np.int16)  # z (up), y (posterior), x (left) in LPS
    array[3, 3, 4] = 1
    array[3, 5, 2] = 2
    array[6, 3, 2] = 3
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((0.7, 0.9, 2.0))
    turn = np.deg2rad(oblique_deg)
    image.SetDirection([np.cos(turn), -np.sin(turn), 0, np.sin(turn), np.cos(turn), 0, 0, 0, 1])
    image.SetOrigin((11.0, -20.0, 33.0))
    return geometry.orient(image, code)


def place(image: sitk.Image, value: int) -> np.ndarray:
    z, y, x = (int(index) for index in np.argwhere(sitk.GetArrayFromImage(image) == value)[0])
    return np.array(image.TransformIndexToPhysicalPoint((x, y, z)))


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("oblique_deg", [0.0, 17.0])
def test_an_asymmetric_phantom_keeps_its_handedness_and_comes_back(code: str, oblique_deg: float) -> None:
    original = phantom(code, oblique_deg)
    assert geometry.orientation_of(original) == code
    harmonized = geometry.orient(original, "LPS")
    array = nifti_family.array_of(harmonized)
    # in LPS the x index grows to the left, y to posterior, z up
    assert [tuple(np.argwhere(array == value)[0]) for value in (1, 2, 3)] == [(3, 3, 4), (3, 5, 2), (6, 3, 2)]
    for value in (1, 2, 3):
        assert np.allclose(place(original, value), place(harmonized, value), atol=1e-9)
    row = geometry.grid_columns(original, harmonized)
    assert np.array_equal(geometry.to_original_grid(array, row), sitk.GetArrayFromImage(original))
    back = geometry.to_original_grid(array > 1, json.loads(json.dumps(row)))
    assert back.dtype == bool
    assert np.array_equal(back, sitk.GetArrayFromImage(original) > 1)
    with pytest.raises(ValueError, match="expected an array"):
        geometry.to_original_grid(array[1:], row)


def test_a_mask_stored_the_other_way_round_is_the_same_mask() -> None:
    image, mask = phantom("LPS"), phantom("RAI")
    geometry.check_same_grid(geometry.orient(image, "LPS"), geometry.orient(mask, "LPS"))
    mask.SetSpacing((0.7, 0.9, 2.5))
    with pytest.raises(CaseError, match="mask_grid"):
        geometry.check_same_grid(geometry.orient(image, "LPS"), geometry.orient(mask, "LPS"))


def test_a_finer_mask_is_put_onto_the_image_where_it_covers_it() -> None:
    image = sitk.Image(6, 8, 5, sitk.sitkInt16)
    image.SetSpacing((2.0, 2.0, 3.0))
    image.SetOrigin((10.0, -20.0, 30.0))
    image.SetDirection(phantom("LPS", 20.0).GetDirection())
    coarse = np.zeros((5, 8, 6), np.uint8)
    coarse[1:3, 2:7, 1:4] = 7
    coarse[4, 0, 5] = 9  # at a corner: an error of half a voxel would lose it
    fine = sitk.GetImageFromArray(coarse.repeat(2, 0).repeat(2, 1).repeat(2, 2))
    fine.SetSpacing((1.0, 1.0, 1.5))
    fine.SetDirection(image.GetDirection())
    fine.SetOrigin(image.TransformContinuousIndexToPhysicalPoint([-0.25] * 3))
    assert np.array_equal(sitk.GetArrayFromImage(geometry.onto_grid(fine, image)), coarse)
    short = fine[:, 2:, :]  # its first row of image voxels was never looked at
    with pytest.raises(CaseError, match=r"mask_grid.*1\.0 voxels beyond"):
        geometry.onto_grid(short, image)


@pytest.mark.parametrize(
    ("spacing", "axis", "plane"),
    [
        ((0.8, 0.8, 6.5), "z", (0.8, 0.8)),
        ((3.0, 1.0, 1.1), "x", (1.1, 1.0)),
        ((1.0, 4.0, 1.0), "y", (1.0, 1.0)),
        ((1.0, 1.0, 1.0), "z", (1.0, 1.0)),
        ((1.0000001, 1.0, 1.0), "z", (1.0, 1.0000001)),
    ],
)
def test_slices_have_the_finest_resolution(spacing: Any, axis: str, plane: Any) -> None:
    assert geometry.slicing_axis(spacing) == axis
    assert geometry.in_plane(spacing, axis) == plane


def test_two_affines_that_disagree_are_refused(tmp_path: Path) -> None:
    import gzip
    import struct

    path = tmp_path / "a.nii.gz"
    image = sitk.GetImageFromArray(np.zeros((4, 5, 6), dtype=np.int16))
    sitk.WriteImage(image, str(path))
    nifti_family.read_volume(path)
    header = bytearray(gzip.decompress(path.read_bytes()))
    struct.pack_into("<2h", header, 252, 1, 1)
    struct.pack_into("<12f", header, 280, -1, 0, 0, 7, 0, -1, 0, 0, 0, 0, 1, 0)  # sform moved by 7 mm
    path.write_bytes(gzip.compress(bytes(header)))
    with pytest.raises(CaseError, match=r"affine_conflict.*7\.000 mm"):
        nifti_family.read_volume(path)


def test_more_than_three_dimensions_are_refused(tmp_path: Path) -> None:
    image = sitk.JoinSeries([sitk.GetImageFromArray(np.zeros((4, 5, 6), dtype=np.int16))] * 2)
    sitk.WriteImage(image, str(tmp_path / "a.nii"))
    with pytest.raises(CaseError, match="dimensions"):
        nifti_family.read_volume(tmp_path / "a.nii")


def test_windows_and_percentiles_can_be_turned_back() -> None:
    hu = np.array([-1000.0, -160.0, 0.0, 40.0, 240.0, 3000.0], dtype=np.float32)
    byte, said = to_8bit(hu, Intensity("window", (-160, 240)))
    assert byte.tolist() == [0, 0, 102, 128, 255, 255]
    back = said["low"] + byte / 255 * (said["high"] - said["low"])
    assert np.abs(back[1:5] - hu[1:5]).max() <= 400 / 255
    padded = np.concatenate([np.full(900, -5.0), np.linspace(0, 100, 101)]).astype(np.float32)
    _, said = to_8bit(padded, Intensity("percentile", (1.0, 99.0)))
    assert (said["low"], said["high"]) == pytest.approx((1.0, 99.0))
    with pytest.raises(CaseError, match="intensity"):
        to_8bit(np.array([np.nan], dtype=np.float32), Intensity("percentile"))
    with pytest.raises(CaseError, match="8-bit"):
        to_8bit(np.zeros((2, 2), dtype=np.uint16), Intensity())


def test_labels_by_value_colour_and_threshold() -> None:
    edges = np.array([[0, 3, 44], [100, 128, 160], [200, 250, 255]], dtype=np.uint8)
    found = masks_of(edges, ByValue({128: "cytoplasm", 255: "nucleus"}, tolerance=63))
    assert found["cytoplasm"].tolist() == [[False] * 3, [True] * 3, [False] * 3]
    assert found["nucleus"].tolist() == [[False] * 3, [False] * 3, [True] * 3]
    with pytest.raises(CaseError, match=r"unknown_label.*values 3"):
        masks_of(edges, ByValue({128: "cytoplasm", 255: "nucleus"}))
    colour = np.array([[[0, 0, 0], [2, 250, 0], [255, 0, 3]]], dtype=np.uint8)
    rule = ByColour((((0, 255, 0), "benign"), ((255, 0, 0), "malignant")), tolerance=8)
    assert {name: mask.tolist() for name, mask in masks_of(colour, rule).items()} == {
        "benign": [[False, True, False]],
        "malignant": [[False, False, True]],
    }
    with pytest.raises(CaseError, match="unknown_label"):
        masks_of(colour, ByColour((((0, 255, 0), "benign"),), tolerance=8))
    with pytest.raises(CaseError, match="colours"):
        masks_of(colour, Binary("polyp"))
    bits = np.array([[True, False]])
    assert masks_of(bits, Binary("membrane", inverted=True))["membrane"].tolist() == [[False, True]]
    with pytest.raises(CaseError, match="ByValue"):
        masks_of(bits.astype(np.uint8), Binary("vessel"))


def test_small_components_are_kept_but_are_no_instance() -> None:
    mask = np.zeros((20, 20), dtype=bool)
    mask[2:8, 2:8] = mask[10:13, 10:13] = True
    mask[19, 19] = True
    assert [int(part.sum()) for part in slices.split_instances(mask, "components", 1)] == [36, 9, 1]
    parts = slices.split_instances(mask, "components", 2)
    assert [int(part.sum()) for part in parts] == [37, 9]
    assert np.array_equal(np.any(parts, axis=0), mask)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1), st.floats(0, 1))
@settings(max_examples=80, deadline=None)
def test_run_lengths_are_pycocotools_run_lengths(height: int, width: int, seed: int, share: float) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < share
    theirs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    assert rle.encode(mask) == theirs
    assert np.array_equal(rle.decode(theirs, height, width), mask)
    assert rle.area(theirs) == int(mask.sum())


def test_a_rotated_photograph_is_shown_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((10, 30, 3), dtype=np.uint8)).save(tmp_path / "a.jpg", exif=exif)
    read = raster.read_image(tmp_path / "a.jpg")
    assert read.pixels.shape == (30, 10, 3)
    assert not read.is_plain_jpeg


def test_a_picture_that_claims_too_much_is_refused_from_its_header(tmp_path: Path) -> None:
    import struct
    import zlib

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    payload = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(payload)
    with pytest.raises(CaseError, match="too_large"):
        raster.read_image(tmp_path / "bomb.png")
