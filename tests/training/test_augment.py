"""Augmentation keeps geometry honest: maps follow the image, left stays left, CT keeps its grey values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from training.augment import KNOBS, Knobs, augment

SIZE = 64


def _scene() -> tuple[Tensor, Tensor, list[Tensor]]:
    """A bright ellipse off centre on grey, as image, map, and instance at half the resolution."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    mask = ((rows - 24) / 9) ** 2 + ((columns - 40) / 14) ** 2 < 1
    union = torch.from_numpy(mask).float()
    image = (0.3 + 0.5 * union).expand(3, -1, -1)
    cells = torch.nn.functional.avg_pool2d(union[None, None], 2)[0]
    return image, union[None], [cells]


def _changed(
    seed: int, modality: str = "MR", sided: bool = False, **knobs: float
) -> tuple[Tensor, Tensor, list[Tensor]]:
    image, semantic, instances = _scene()
    draw = np.random.default_rng(seed)
    return augment(image, semantic, instances, Knobs(**knobs), modality=modality, sided=sided, draw=draw)


def _dice(first: Tensor, second: Tensor) -> float:
    return float(2 * (first & second).sum() / (first.sum() + second.sum()))


GEOMETRY: dict[str, Any] = {"flip": 0.5, "zoom": 0.25, "rotate_degrees": 20.0, "shift": 0.1, "elastic": 0.03}


@pytest.mark.parametrize("modality", ["MR", "CT", "microscopy"])
def test_maps_and_instances_go_where_the_image_goes(modality: str) -> None:
    moved = 0
    for seed in range(30):
        image, semantic, (cells,) = _changed(seed, modality, **GEOMETRY)
        bright = image[0] > 0.55
        assert _dice(bright, semantic[0] > 0.5) > 0.97
        fine = torch.nn.functional.interpolate(cells[None], (SIZE, SIZE), mode="bilinear", align_corners=False)[0, 0]
        assert _dice(bright, fine > 0.5) > 0.9
        moved += _dice(bright, _scene()[1][0] > 0.5) < 0.9
    assert moved > 20


def test_elastic_bends_and_is_mild() -> None:
    areas = []
    for seed in range(20):
        _, semantic, _ = _changed(seed, elastic=0.02)
        overlap = _dice(semantic[0] > 0.5, _scene()[1][0] > 0.5)
        assert 0.8 < overlap < 1
        areas.append(float((semantic[0] > 0.5).sum()))
    assert np.std(areas) > 1


def _centre_x(semantic: Tensor) -> float:
    return float((semantic[0] * torch.arange(SIZE)).sum() / semantic[0].sum())


def test_left_stays_left_where_sides_are_concepts() -> None:
    free = [_centre_x(_changed(seed, flip=0.5)[1]) < SIZE / 2 for seed in range(40)]
    assert 10 < sum(free) < 30
    assert not any(_centre_x(_changed(seed, sided=True, flip=1.0)[1]) < SIZE / 2 for seed in range(40))
    # nor by two quarter turns
    turned = [_centre_x(_changed(seed, "microscopy", sided=True, flip=1.0)[1]) for seed in range(40)]
    assert min(turned) > SIZE / 2


GREY = {"brightness": 0.3, "contrast": 0.3, "gamma": 0.4}


def test_ct_keeps_its_window_and_others_are_jittered() -> None:
    image = _scene()[0]
    for seed in range(10):
        torch.testing.assert_close(_changed(seed, "CT", ct_jitter=0.0, **GREY)[0], image)
        for modality, factor in (("OCT angiography", 0.0), ("CT", 1.0)):
            other = _changed(seed, modality, ct_jitter=factor, **GREY)[0]
            assert float((other - image).abs().max()) > 0.01


@pytest.mark.parametrize(("knob", "value"), [("noise", 0.2), ("blur", 2.0), ("low_resolution", 0.8), ("gamma", 0.5)])
def test_a_worse_scanner_moves_nothing(knob: str, value: float) -> None:
    before, semantic, (cells,) = _scene()
    changed = 0
    for seed in range(40):
        image, after, (parts,) = _changed(seed, **{knob: value})
        torch.testing.assert_close(after, semantic)
        torch.testing.assert_close(parts, cells)
        assert 0 <= float(image.min()) <= float(image.max()) <= 1
        bright = (image - image.amin()).amax(0, keepdim=True)
        if knob != "noise":
            assert _centre_x(bright / bright.max()) == pytest.approx(_centre_x(semantic), abs=0.6)
        changed += not torch.allclose(image, before, atol=1e-3)
    assert changed >= (35 if knob == "gamma" else 5)
    assert changed <= (40 if knob == "gamma" else 20)


@pytest.mark.parametrize("knob", KNOBS)
def test_all_knobs_at_zero_change_nothing(knob: str) -> None:
    image, semantic, (cells,) = _changed(3, "CT" if knob == "ct_jitter" else "MR", **{knob: 0.0})
    before = _scene()
    torch.testing.assert_close(image, before[0])
    torch.testing.assert_close(semantic, before[1])
    torch.testing.assert_close(cells, before[2][0])
