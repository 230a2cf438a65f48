"""Resampled cases: the asymmetric phantom stays where it is in the world, and masks come back to their grid."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.errors import CaseError, UsageError
from infra.storage import sha256_file
from preprocessing.cards import ByValue, DatasetCard, Intensity, Layout, Licence, RawCase
from preprocessing.harmonize import geometry
from preprocessing.harmonize.case import CaseItem, process
from preprocessing.harmonize.intensity import to_8bit
from preprocessing.harmonize.payload import decode
from preprocessing.schema import rle


def volume(array: np.ndarray, spacing_xyz: tuple[float, float, float], turn_deg: float = 0.0) -> sitk.Image:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing_xyz)
    turn = np.deg2rad(turn_deg)
    image.SetDirection([np.cos(turn), -np.sin(turn), 0, np.sin(turn), np.cos(turn), 0, 0, 0, 1])
    image.SetOrigin((11.0, -20.0, 33.0))
    return image


def comma(shape: tuple[int, int, int], spacing_zyx: tuple[float, float, float]) -> np.ndarray:
    """A ball with a tail on one side, in mm: no mirror image of it is itself."""
    z, y, x = (
        (np.arange(size) - (size - 1) / 2).reshape([-1 if axis == k else 1 for k in range(3)]) * spacing_zyx[axis]
        for axis, size in enumerate(shape)
    )
    ball = (x - 2) ** 2 + (y + 3) ** 2 + z**2 <= 11.0**2
    tail = ((x - 13) / 11) ** 2 + ((y - 7) / 6) ** 2 + ((z - 5) / 9) ** 2 <= 1
    return np.asarray(ball | tail)


@pytest.mark.parametrize("code", ["LPS", "RAS", "PIR", "SAL"])
@pytest.mark.parametrize("turn_deg", [0.0, 17.0])
@pytest.mark.parametrize("wanted", [(1.0, 1.0, 1.0), (2.3, 0.6, 0.6), (0.0, 1.3, 0.9)])
def test_the_comma_keeps_volume_place_and_handedness(
    code: str, turn_deg: float, wanted: tuple[float, float, float]
) -> None:
    spacing = (0.8, 0.9, 2.0)
    mask = comma((26, 60, 70), spacing[::-1])
    original = geometry.orient(volume(mask.astype(np.uint8), spacing, turn_deg), code)
    oriented = geometry.orient(original, "LPS")
    harmonized = geometry.regrid(oriented, wanted)
    got = tuple(float(value) for value in harmonized.GetSpacing())
    assert got == pytest.approx(
        [value or kept for value, kept in zip(wanted[::-1], oriented.GetSpacing(), strict=True)]
    )
    before = sitk.GetArrayFromImage(oriented).astype(bool)
    after = geometry.regrid_mask(before, oriented, harmonized)
    volumes = before.sum() * np.prod(oriented.GetSpacing()), after.sum() * np.prod(got)
    assert abs(volumes[0] - volumes[1]) / volumes[0] <= 0.02
    centres = []
    for array, grid in ((before, oriented), (after, harmonized)):
        z, y, x = np.argwhere(array).mean(axis=0)
        centres.append(grid.TransformContinuousIndexToPhysicalPoint((x, y, z)))
    # less than half a voxel of the old grid, which is what the nearest neighbour can be off
    assert np.linalg.norm(np.array(centres[0]) - np.array(centres[1])) < 0.4
    row = json.loads(json.dumps(geometry.grid_columns(original, harmonized)))
    back = geometry.to_original_grid(after, row)
    truth = sitk.GetArrayFromImage(original).astype(bool)
    assert back.shape == truth.shape
    assert 2 * (back & truth).sum() / (back.sum() + truth.sum()) > 0.95
    assert abs(int(back.sum()) - int(truth.sum())) / truth.sum() <= 0.02


@given(
    st.tuples(*[st.integers(3, 9)] * 3),
    st.tuples(*[st.floats(0.5, 3.0)] * 3),
    st.tuples(*[st.floats(0.4, 1.0)] * 3),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
def test_a_finer_grid_loses_nothing(
    size: tuple[int, int, int], spacing: tuple[float, float, float], finer: tuple[float, float, float], seed: int
) -> None:
    """Nearest neighbour there and back is exact for any mask where the new spacing is not the coarser one."""
    mask = np.random.default_rng(seed).random(size[::-1]) < 0.4
    original = volume(mask.astype(np.uint8), spacing, 8.0)
    wanted = [step * share for step, share in zip(spacing, finer, strict=True)][::-1]
    harmonized = geometry.regrid(original, wanted)
    there = geometry.regrid_mask(mask, original, harmonized)
    assert np.array_equal(geometry.to_original_grid(there, geometry.grid_columns(original, harmonized)), mask)


def test_a_ramp_stays_a_ramp_and_the_grid_covers_the_old_one() -> None:
    z, y, x = np.indices((12, 14, 16))
    original = volume((3 * x + 2 * y - z).astype(np.float32), (1.0, 1.0, 1.0))
    finer = geometry.regrid(original, (0.5, 0.7, 0.8))
    array = sitk.GetArrayFromImage(finer)
    for index in ((4, 5, 6), (8, 9, 10), (3, 12, 14)):
        at = original.TransformPhysicalPointToContinuousIndex(finer.TransformIndexToPhysicalPoint(index))
        assert array[index[::-1]] == pytest.approx(3 * at[0] + 2 * at[1] - at[2], abs=1e-3)
    assert all(
        new * step >= old - 1e-3
        for new, step, old in zip(finer.GetSize(), finer.GetSpacing(), (16, 14, 12), strict=True)
    )
    assert geometry.regrid(original, (1.0, 1.0, 0.0)) is original


def test_a_spacing_that_would_fill_the_memory_is_refused() -> None:
    with pytest.raises(CaseError, match="too_large"):
        geometry.regrid(volume(np.zeros((40, 40, 40), np.uint8), (3.0, 3.0, 3.0)), (0.05, 0.05, 0.05))


def card(**options: Any) -> DatasetCard:
    return DatasetCard(
        **{
            "name": "made", "title": "Made", "modality": "CT", "licence": Licence("none"), "citation": "nobody",
            "homepage": "https://example.org", "layout_checked": "made here",
            "layouts": (Layout(image="(?P<case>i).nii", label="(?P<case>l).nii"),),
            "labels": ByValue({1: "comma"}), "intensity": Intensity("window", (0.0, 100.0)),
            "searched": ("comma",), **options,
        }
    )  # fmt: skip


def processed(tmp_path: Path, made: DatasetCard, image: sitk.Image, label: sitk.Image) -> Any:
    sitk.WriteImage(image, str(tmp_path / "i.nii"))
    sitk.WriteImage(label, str(tmp_path / "l.nii"))
    case = RawCase("one", "one", ("i.nii",), ("l.nii",))
    result = process(
        CaseItem(
            card=made,
            case=case,
            root=str(tmp_path),
            sha256={file: sha256_file(tmp_path / file) for file in case.files},
            orientation="LPS",
            min_object_area_px=1,
            shown_id="one",
            shown_files={file: file for file in case.files},
        )
    )
    assert result.refusal is None, result.refusal
    return result


def marked(rows: list[dict[str, Any]], axis: str) -> np.ndarray:
    """The volume (axis first) of the masks in the rows of one axis."""
    return np.stack(
        [
            np.any([rle.decode(item["rle"], row["height"], row["width"]) for item in row["objects"]], axis=0)
            if row["objects"]
            else np.zeros((row["height"], row["width"]), dtype=bool)
            for row in rows
            if row["axis"] == axis
        ]
    )


def test_a_card_resamples_and_the_case_says_how_to_go_back(tmp_path: Path) -> None:
    mask = comma((26, 60, 70), (2.0, 0.9, 0.8))
    label = geometry.orient(volume(mask.astype(np.uint8), (0.8, 0.9, 2.0), 9.0), "RAI")
    result = processed(tmp_path, card(spacing_mm_zyx=(2.0, 0.5, 0.5)), sitk.Cast(label, sitk.sitkInt16) * 90, label)
    assert result.rows[0]["spacing_mm_yx"] == pytest.approx([0.5, 0.5])
    assert result.columns["harmonized_size_xyz"] == [112, 108, 26]
    assert json.loads(result.columns["source_voxels"]) == {"comma": int(mask.sum())}
    back = geometry.to_original_grid(marked(result.rows, "z"), result.columns)
    assert np.array_equal(back, sitk.GetArrayFromImage(label) > 0)


def test_other_axes_on_request(tmp_path: Path) -> None:
    mask = comma((26, 60, 70), (2.0, 0.9, 0.8))
    label = volume(mask.astype(np.uint8), (0.8, 0.9, 2.0))
    result = processed(tmp_path, card(axes=("z", "y", "x")), sitk.Cast(label, sitk.sitkInt16), label)
    assert [sum(row["axis"] == axis for row in result.rows) for axis in "zyx"] == [26, 60, 70]
    assert len({row["sample_id"] for row in result.rows}) == 156
    for axis, where in (("z", 0), ("y", 1), ("x", 2)):
        assert np.array_equal(marked(result.rows, axis), np.moveaxis(mask, where, 0))
    spacing = {row["axis"]: tuple(row["spacing_mm_yx"]) for row in result.rows}
    assert spacing["y"] == pytest.approx((2.0, 0.8))
    assert json.loads(result.columns["intensity"])["axes"] == ["z", "y", "x"]


def test_three_windows_are_three_channels_that_can_be_turned_back(tmp_path: Path) -> None:
    windows = ((-1000.0, 200.0), (-160.0, 240.0), (-500.0, 1300.0))
    hu = np.linspace(-1200, 1500, 26 * 60 * 70).reshape(26, 60, 70).astype(np.int16)
    mask = comma(hu.shape, (2.0, 0.9, 0.8)).astype(np.uint8)
    result = processed(
        tmp_path,
        card(intensity=Intensity("window", windows=windows)),
        volume(hu, (0.8, 0.9, 2.0)),
        volume(mask, (0.8, 0.9, 2.0)),
    )
    said = json.loads(result.columns["intensity"])
    assert said["windows"] == [list(window) for window in windows]
    pixels = decode(result.rows[13]["image"])
    assert pixels.shape == (60, 70, 3)
    for channel, (low, high) in enumerate(said["windows"]):
        inside = (hu[13] > low) & (hu[13] < high)
        back = low + pixels[..., channel] / 255 * (high - low)
        assert np.abs(back - hu[13])[inside].max() <= (high - low) / 255
    alone, _ = to_8bit(hu[13], Intensity("window", windows[1]))
    assert np.array_equal(pixels[..., 1], alone)
    for wrong in (windows[:2], ((2.0, 1.0),) * 3):
        with pytest.raises(UsageError, match="three pairs"):
            Intensity("window", windows=wrong)
    with pytest.raises(UsageError, match="rule window"):
        Intensity("percentile", windows=windows)


def test_a_frame_of_a_4d_file_is_picked_by_the_card(tmp_path: Path) -> None:
    mask = comma((26, 60, 70), (2.0, 0.9, 0.8))
    label = volume(mask.astype(np.uint8), (0.8, 0.9, 2.0))
    frames = [sitk.Cast(label, sitk.sitkInt16) * factor for factor in (10, 50, 90)]
    for frame, grey in ((0, 26), (2, 230)):
        result = processed(tmp_path, card(frame=frame), sitk.JoinSeries(frames), label)
        assert max(int(decode(row["image"]).max()) for row in result.rows) == grey
