"""Contours become the voxels whose centres they enclose: analytic areas, holes, and another filler as oracle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.path import Path as Outline
from pydicom.dataset import Dataset

from infra.errors import CaseError
from preprocessing.cards import Contours, DatasetCard, Layout, Licence
from preprocessing.readers.dicom import find_dicom_cases, read_series
from preprocessing.readers.rtstruct import fill, read_contours
from tests.made_dicom import SERIES, phantom, rewritten, series, structure_set

SHAPE = (9, 60, 50)
SPACING = (2.0, 0.5, 0.7)  # z, y, x
ORIGIN = np.array((-10.0, 20.0, 5.0))  # x, y, z


def at(x: Any, y: Any, z: Any) -> np.ndarray:
    """Voxel indices to millimetres."""
    points = np.stack(np.broadcast_arrays(x, y, z), axis=-1).astype(float)
    return ORIGIN + points * np.array(SPACING[::-1])


def circle(x: float, y: float, z: float, radius_mm: float, points: int = 90) -> np.ndarray:
    turn = np.linspace(0, 2 * np.pi, points, endpoint=False)
    return at(x + radius_mm * np.cos(turn) / SPACING[2], y + radius_mm * np.sin(turn) / SPACING[1], z)


def box(x0: float, y0: float, x1: float, y1: float, z: float) -> np.ndarray:
    """A rectangle around the pixels x0…x1, y0…y1, its edges half-way to the next."""
    return at([x0 - 0.5, x1 + 0.5, x1 + 0.5, x0 - 0.5], [y0 - 0.5, y0 - 0.5, y1 + 0.5, y1 + 0.5], z)


@pytest.fixture
def scan(tmp_path: Path) -> list[Path]:
    return series(tmp_path / "ct", phantom(SHAPE), spacing_zyx=SPACING)


def drawn(scan: list[Path], path: Path, **options: Any) -> dict[str, np.ndarray]:
    read = read_series(scan)
    return read_contours(path, read.uids, read.image, **options)


def test_a_ball_has_its_volume_and_its_place(tmp_path: Path, scan: list[Path]) -> None:
    radius, middle = 8.0, (24.3, 30.2, 4.0)
    heights = (np.arange(SHAPE[0]) - middle[2]) * SPACING[0]
    contours = [
        circle(middle[0], middle[1], z, float(np.sqrt(radius**2 - height**2)))
        for z, height in enumerate(heights)
        if abs(height) < radius
    ]
    found = drawn(scan, structure_set(tmp_path / "rt.dcm", {"Ball ": contours}))["ball"]
    discs = sum(np.pi * (radius**2 - height**2) for height in heights if abs(height) < radius) * SPACING[0]
    volume = float(found.sum()) * np.prod(SPACING)
    assert abs(volume - discs) / discs < 0.01
    assert abs(volume - 4 / 3 * np.pi * radius**3) / volume < 0.02
    assert np.allclose(np.argwhere(found).mean(axis=0), middle[::-1], atol=0.1)


def test_a_hole_an_island_in_it_and_a_second_part(tmp_path: Path, scan: list[Path]) -> None:
    contours = [box(8, 8, 11, 11, 3), box(2, 2, 30, 30, 3), box(5, 5, 20, 20, 3), box(40, 40, 45, 50, 3)]
    found = drawn(scan, structure_set(tmp_path / "rt.dcm", {"a": contours}))["a"]
    wanted = np.zeros(SHAPE, dtype=bool)
    wanted[3, 2:31, 2:31] = True
    wanted[3, 5:21, 5:21] = False
    wanted[3, 8:12, 8:12] = True
    wanted[3, 40:51, 40:46] = True
    assert np.array_equal(found, wanted)


def test_a_keyhole_is_a_hole(tmp_path: Path, scan: list[Path]) -> None:
    outer, inner = box(2, 2, 30, 30, 3), box(5, 5, 20, 20, 3)
    keyhole = np.concatenate([outer, outer[:1], inner[::-1], inner[-1:]])
    found = drawn(scan, structure_set(tmp_path / "rt.dcm", {"a": [keyhole]}))["a"][3]
    wanted = np.zeros(SHAPE[1:], dtype=bool)
    wanted[2:31, 2:31] = True
    wanted[5:21, 5:21] = False
    assert np.array_equal(found, wanted)


def test_overlapping_parts_are_united_and_copies_count_once(tmp_path: Path, scan: list[Path]) -> None:
    contours = [box(2, 2, 20, 20, 3), box(15, 10, 40, 30, 3), box(2, 2, 20, 20, 3)]
    found = drawn(scan, structure_set(tmp_path / "rt.dcm", {"a": contours}))["a"][3]
    wanted = np.zeros(SHAPE[1:], dtype=bool)
    wanted[2:21, 2:21] = True
    wanted[10:31, 15:41] = True
    assert np.array_equal(found, wanted)
    xor = drawn(scan, structure_set(tmp_path / "xor.dcm", {"a": contours[:2]}, kind="CLOSEDPLANAR_XOR"))["a"][3]
    wanted[10:21, 15:21] = False
    assert np.array_equal(xor, wanted)


def test_contours_lie_on_their_slice_or_are_refused(tmp_path: Path, scan: list[Path]) -> None:
    near = drawn(scan, structure_set(tmp_path / "near.dcm", {"a": [box(2, 2, 9, 9, 3.1)]}))["a"]
    assert (near[3].sum(), near.sum()) == (64, 64)
    with pytest.raises(CaseError, match=r"contour_plane.*0\.50 of the slice"):
        drawn(scan, structure_set(tmp_path / "between.dcm", {"a": [box(2, 2, 9, 9, 3.5)]}))
    upright = at([2, 9, 9], [5, 5, 5], [2, 2, 6])
    with pytest.raises(CaseError, match="contour_plane"):
        drawn(scan, structure_set(tmp_path / "upright.dcm", {"a": [upright]}))
    beyond = structure_set(tmp_path / "beyond.dcm", {"a": [box(2, 2, 9, 9, 4), box(2, 2, 9, 9, 12)]})
    with pytest.raises(CaseError, match=r"unknown_slice.*12\.00 slices above"):
        drawn(scan, beyond)
    assert drawn(scan, beyond, partial=True)["a"].sum() == 64
    with pytest.raises(CaseError, match=r"mask_grid"):
        drawn(scan, structure_set(tmp_path / "off.dcm", {"a": [box(40, 2, 90, 9, 3)]}))
    with pytest.raises(CaseError, match=r"contour_type.*POINT"):
        drawn(scan, structure_set(tmp_path / "point.dcm", {"a": [box(2, 2, 9, 9, 3)]}, kind="POINT"))
    assert drawn(scan, tmp_path / "point.dcm", skip=("a",)) == {}
    assert not drawn(scan, structure_set(tmp_path / "none.dcm", {"a": []}))["a"].any()


def test_a_contour_of_a_slice_that_is_not_there_is_not_moved_to_one_that_is(tmp_path: Path, scan: list[Path]) -> None:
    def name(made: Dataset) -> None:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2.3.999"
        made.ROIContourSequence[0].ContourSequence[0].ContourImageSequence = [item]

    path = rewritten(structure_set(tmp_path / "rt.dcm", {"a": [box(2, 2, 9, 9, 3)]}), name)
    with pytest.raises(CaseError, match="unknown_slice"):
        drawn(scan, path)


def test_contours_on_an_oblique_tilted_series(tmp_path: Path) -> None:
    cosines = (0.8, 0.6, 0.0, -0.36, 0.48, 0.8)
    scan = series(tmp_path / "ct", phantom(SHAPE), spacing_zyx=SPACING, cosines=cosines, tilt_mm=(0.3, -0.5))
    image = read_series(scan).image
    corners = [(2 - 0.5, 3 - 0.5), (20 + 0.5, 3 - 0.5), (20 + 0.5, 17 + 0.5), (2 - 0.5, 17 + 0.5)]
    contour = [image.TransformContinuousIndexToPhysicalPoint((x, y, 6.0)) for x, y in corners]
    found = drawn(scan, structure_set(tmp_path / "rt.dcm", {"a": [contour]}))["a"]
    wanted = np.zeros(SHAPE, dtype=bool)
    wanted[6, 3:18, 2:21] = True
    assert np.array_equal(found, wanted)


@given(st.integers(3, 25), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_filling_is_what_another_filler_does(corners: int, seed: int) -> None:
    """matplotlib's point test as oracle on simple (star-shaped) outlines, but for centres within a hair of an edge."""
    rng = np.random.default_rng(seed)
    turn = np.sort(rng.uniform(0, 2 * np.pi, corners))
    points = np.array([14.0, 11.0]) + (rng.uniform(2, 14, corners) * np.array([np.cos(turn), np.sin(turn)])).T
    if np.diff(np.concatenate([turn, turn[:1] + 2 * np.pi])).max() > np.pi:
        return  # the centre lies outside: such an outline may cross itself
    mine = fill(points, (23, 29))
    y, x = np.mgrid[:23, :29]
    centres = np.stack([x.ravel(), y.ravel()], axis=1)
    theirs = Outline(points, closed=False).contains_points(centres).reshape(23, 29)
    starts, ends = points, np.roll(points, -1, axis=0)
    along = ends - starts
    share = np.clip(((centres[:, None] - starts) * along).sum(-1) / np.maximum((along**2).sum(-1), 1e-12), 0, 1)
    near = np.linalg.norm(centres[:, None] - starts - share[..., None] * along, axis=-1).min(axis=1).reshape(23, 29)
    assert np.array_equal(mine[near > 1e-6], theirs[near > 1e-6])


def test_polygons_that_share_an_edge_neither_overlap_nor_leave_a_gap() -> None:
    left = fill(np.array([(0, 0), (7, 0), (12, 20), (0, 20)], dtype=float), (20, 20))
    right = fill(np.array([(7, 0), (20, 0), (20, 20), (12, 20)], dtype=float), (20, 20))
    assert not (left & right).any()
    assert (left | right).all()


def test_structure_sets_find_their_series(tmp_path: Path) -> None:
    series(tmp_path / "p1/ct", phantom(SHAPE))
    series(tmp_path / "p2/ct", phantom(SHAPE), change=lambda _, made: setattr(made, "SeriesInstanceUID", "1.2.3.5"))
    structure_set(tmp_path / "plans/rt.dcm", {"a": [box(2, 2, 9, 9, 3)]})
    (tmp_path / "plans/rt").write_bytes((tmp_path / "plans/rt.dcm").read_bytes())
    rewritten(
        tmp_path / "plans/rt",
        lambda made: setattr(
            made.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0].RTReferencedSeriesSequence[0],
            "SeriesInstanceUID",
            "1.2.3.5",
        ),
    )
    card = DatasetCard(
        name="plans", title="Plans", modality="CT", licence=Licence("none"), citation="nobody",
        homepage="https://example.org", layout_checked="made here", labels=Contours({"a": "liver"}),
        layouts=(Layout(image=r"(?P<case>p\d)/ct/.*", label=r"(?P<case>plans)/.*"),),
    )  # fmt: skip
    found = {case.case_id: (len(case.images), case.labels, case.group) for case in find_dicom_cases(card, tmp_path)}
    assert found == {"p1_ct": (9, ("plans/rt.dcm",), "P1"), "p2_ct": (9, ("plans/rt",), "P1")}
    assert SERIES not in str(found)


def test_a_series_in_the_root_has_a_name(tmp_path: Path) -> None:
    series(tmp_path, phantom(SHAPE))
    structure_set(tmp_path / "rt", {"a": [box(2, 2, 9, 9, 3)]})
    card = DatasetCard(
        name="plans", title="Plans", modality="CT", licence=Licence("none"), citation="nobody",
        homepage="https://example.org", layout_checked="made here", labels=Contours({"a": "liver"}),
        layouts=(Layout(image=r"(?P<case>\d+)\.dcm", label=r"(?P<case>rt)"),),
    )  # fmt: skip
    assert [(case.case_id, len(case.images), case.labels) for case in find_dicom_cases(card, tmp_path)] == [
        ("series", 9, ("rt",))
    ]


def test_the_real_structure_sets(mirror: Path) -> None:
    scan = sorted((mirror / "rt-utils_mock_data").glob("ct_*.dcm"))
    found = drawn(scan, mirror / "rt-utils_mock_data/rt.dcm")["roi-1"]
    areas = []  # a square and the hole in it, by the shoelace formula
    for contour in pydicom.dcmread(mirror / "rt-utils_mock_data/rt.dcm").ROIContourSequence[0].ContourSequence:
        x, y = np.array(contour.ContourData, dtype=float).reshape(-1, 3)[:, :2].T
        areas.append(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)
    area = areas[0] - areas[1]
    pixel = float(np.prod(read_series(scan).image.GetSpacing()[:2]))
    assert abs(found.sum() * pixel - area) / area < 0.03
    for name in ("invalid_reference_rt.dcm", "non_existent_reference_rt.dcm"):
        with pytest.raises(CaseError, match="unknown_slice"):
            drawn(scan, mirror / "rt-utils_mock_data" / name)
    one = [mirror / "dicompyler_example_data/ct.0.dcm"]
    regions = drawn(one, mirror / "dicompyler_example_data/rtss.dcm", partial=True)
    assert [name for name, mask in regions.items() if mask.any()] == ["body"]
