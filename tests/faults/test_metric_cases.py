"""faults.md, row "metrics": both empty, one empty, one voxel, anisotropic: values worked by hand, and outside oracles.

The sixteen cases lie on a grid of 4 x 5 x 6 voxels of 3 x 2 x 1 mm (z, y, x); tolerance 2 mm. Its diagonal is
sqrt(12² + 10² + 6²) = sqrt(280) mm.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from training.metrics import dice_iou
from training.scoring.surface import nsd_hd95, surface_of

SHAPE, SPACING, TOLERANCE = (4, 5, 6), (3.0, 2.0, 1.0), 2.0
DIAGONAL = math.sqrt(280)


def box(*sides: tuple[int, int]) -> np.ndarray:
    """Voxels from the first to before the second number on each axis (z, y, x); no sides: nothing."""
    mask = np.zeros(SHAPE, dtype=bool)
    if sides:
        mask[tuple(slice(*side) for side in sides)] = True
    return mask


ONE = box((1, 2), (1, 2), (1, 2))
NOTHING, ALL = box(), box((0, 4), (0, 5), (0, 6))
ROW = box((1, 2), (1, 2), (0, 4))  # four voxels along x
CASES: dict[str, tuple[np.ndarray, np.ndarray, float, float, float, float]] = {
    # name: truth, predicted, Dice, IoU, NSD, HD95 in mm
    "both empty": (NOTHING, NOTHING, 1, 1, 1, 0),
    "truth empty": (NOTHING, ONE, 0, 0, 0, DIAGONAL),
    "prediction empty": (ONE, NOTHING, 0, 0, 0, DIAGONAL),
    "all against nothing": (ALL, NOTHING, 0, 0, 0, DIAGONAL),
    "one voxel, found": (ONE, ONE, 1, 1, 1, 0),
    "one voxel, one beside along x": (ONE, box((1, 2), (1, 2), (2, 3)), 0, 0, 1, 1),
    "one voxel, one beside along y": (ONE, box((1, 2), (2, 3), (1, 2)), 0, 0, 1, 2),  # 2 mm is within 2 mm
    "one voxel, one beside along z": (ONE, box((2, 3), (1, 2), (1, 2)), 0, 0, 0, 3),
    "one voxel, across the corner": (ONE, box((2, 3), (2, 3), (2, 3)), 0, 0, 0, math.sqrt(14)),
    "one voxel, three away along x": (ONE, box((1, 2), (1, 2), (4, 5)), 0, 0, 0, 3),
    "one voxel of two": (ONE, box((1, 2), (1, 2), (1, 3)), 2 / 3, 1 / 2, 1, 0.95),  # distances 0 and 1 mm: 95 % between
    "one voxel of two along z": (ONE, box((1, 3), (1, 2), (1, 2)), 2 / 3, 1 / 2, 2 / 3, 2.85),  # 0 and 3 mm
    "a row, one voxel too far": (ROW, box((1, 2), (1, 2), (1, 5)), 3 / 4, 3 / 5, 1, 0.85),  # 0, 0, 0, 1 mm
    # row: x = 0..3 to 3 is 3, 2, 1, 0 mm (one beyond 2 mm, 95 % at 2.85); back: 0, 1, 2 mm
    "rows that share an end": (ROW, box((1, 2), (1, 2), (3, 6)), 2 / 7, 1 / 6, 6 / 7, 2.85),
    "all": (ALL, ALL, 1, 1, 1, 0),
    # planes z = 0 and z = 1 of 30 voxels each, all surface: 3 mm apart throughout
    "planes, one slice apart": (box((0, 1), (0, 5), (0, 6)), box((1, 2), (0, 5), (0, 6)), 0, 0, 0, 3),
}


@pytest.mark.parametrize("name", CASES)
def test_worked_by_hand(name: str) -> None:
    truth, predicted, *wanted = CASES[name]
    found = (*dice_iou(truth, predicted), *nsd_hd95(truth, predicted, SPACING, TOLERANCE))
    assert found == pytest.approx(wanted, abs=1e-6)
    # all four are the same seen from the other side
    assert (*dice_iou(predicted, truth), *nsd_hd95(predicted, truth, SPACING, TOLERANCE)) == pytest.approx(
        wanted, abs=1e-6
    )


def blobs(seed: int, shape: tuple[int, ...] = (14, 22, 18)) -> tuple[np.ndarray, np.ndarray]:
    """Two smooth shapes that overlap in part."""
    draw = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.arange(side) for side in shape), indexing="ij"), axis=-1)
    centre = np.array(shape) / 2 + draw.uniform(-1.5, 1.5, len(shape))
    radii = np.array(shape) * draw.uniform(0.2, 0.4, len(shape))
    move, grow = draw.uniform(-2, 2, len(shape)), draw.uniform(0.8, 1.2)
    return tuple(
        (((grid - at) / size) ** 2).sum(axis=-1) < 1 for at, size in ((centre, radii), (centre + move, radii * grow))
    )  # type: ignore[return-value]


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (5.0, 0.7, 0.7), (3.0, 2.0, 1.0)])
def test_monai_agrees(spacing: tuple[float, float, float]) -> None:
    torch = pytest.importorskip("torch")
    metrics = pytest.importorskip("monai.metrics")
    pairs: list[tuple[np.ndarray, np.ndarray]] = [blobs(seed) for seed in range(8)]
    pairs += [case[:2] for case in CASES.values() if case[0].any() and case[1].any()]
    for truth, predicted in pairs:
        one, other = (torch.from_numpy(mask)[None, None].float() for mask in (predicted, truth))
        options: dict[str, Any] = {"include_background": True, "spacing": list(spacing)}
        dice = metrics.compute_dice(one, other, include_background=True)
        iou = metrics.compute_iou(one, other, include_background=True)
        nsd = metrics.compute_surface_dice(one, other, [1.9], **options)
        hd95 = metrics.compute_hausdorff_distance(one, other, percentile=95, **options)
        assert dice_iou(truth, predicted) == pytest.approx((float(dice), float(iou)), abs=1e-6)
        assert nsd_hd95(truth, predicted, spacing, 1.9) == pytest.approx((float(nsd), float(hd95)), abs=1e-4)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 2.0, 1.0)])
def test_deepmind_agrees_within_a_voxel(spacing: tuple[float, float, float]) -> None:
    """DeepMind's surface runs between voxels, by area: HD95 within a voxel, NSD within 0.12 at equal spacing."""
    theirs = pytest.importorskip("surface_distance")
    for seed in range(8):
        truth, predicted = blobs(seed)
        found = theirs.compute_surface_distances(truth, predicted, spacing)
        nsd, hd95 = nsd_hd95(truth, predicted, spacing, 2.5)
        assert hd95 == pytest.approx(theirs.compute_robust_hausdorff(found, 95), abs=max(spacing))
        if len(set(spacing)) == 1:  # where a voxel is longer than the tolerance, the two count differently
            assert nsd == pytest.approx(theirs.compute_surface_dice_at_tolerance(found, 2.5), abs=0.12)
        assert dice_iou(truth, predicted)[0] == pytest.approx(
            theirs.compute_dice_coefficient(truth, predicted), abs=1e-9
        )
    # where both are exact: a perfect answer, and flat faces a whole number of voxels apart
    truth, slab, moved = blobs(0)[0], np.zeros((12, 6, 6), dtype=bool), np.zeros((12, 6, 6), dtype=bool)
    slab[:4], moved[:7] = True, True
    for pair, wanted in (((truth, truth), 0.0), ((slab, moved), 3 * spacing[0])):
        found = theirs.compute_surface_distances(*pair, spacing)
        assert nsd_hd95(*pair, spacing, 1.0)[1] == theirs.compute_robust_hausdorff(found, 95) == pytest.approx(wanted)


def test_without_scipy_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    truth, predicted = blobs(3)
    wanted = nsd_hd95(truth, predicted, SPACING, 1.0)
    monkeypatch.setitem(sys.modules, "scipy.spatial", None)
    assert nsd_hd95(truth, predicted, SPACING, 1.0) == pytest.approx(wanted, abs=1e-9)


def test_a_surface_is_what_touches_the_outside_face_to_face() -> None:
    assert int(surface_of(ALL).sum()) == 4 * 5 * 6 - 2 * 3 * 4
    assert int(surface_of(np.pad(ALL, 1)).sum()) == 4 * 5 * 6 - 2 * 3 * 4


@pytest.mark.parametrize(
    ("spacing", "tolerance"),
    [((1.0, 1.0), 1.0), ((1.0, 0.0, 1.0), 1.0), ((1.0, math.nan, 1.0), 1.0), ((1.0, 1.0, 1.0), math.nan)],
)
def test_what_is_no_length_is_refused(spacing: tuple[float, ...], tolerance: float) -> None:
    with pytest.raises(ValueError, match="expected"):
        nsd_hd95(ONE, ONE, spacing, tolerance)
