"""Run lengths of large masks are pycocotools', in the shortened ways that large masks take too."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from pycocotools import mask as coco

from preprocessing.schema import rle


def _theirs(mask: rle.Mask) -> str:
    counts: bytes = coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
    return counts.decode()


@given(st.integers(130, 400), st.integers(130, 400), st.data())
@settings(max_examples=60, deadline=None)
def test_a_speckled_box_anywhere_in_a_large_image(height: int, width: int, data: st.DataObject) -> None:
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    bottom, right = data.draw(st.integers(top + 1, height)), data.draw(st.integers(left + 1, width))
    share = data.draw(st.sampled_from([0.001, 0.1, 0.9, 1.0]))
    mask = np.zeros((height, width), dtype=bool)
    box = mask[top:bottom, left:right]
    box[...] = np.random.default_rng(height * width).random(box.shape) < share
    assert rle.encode(mask) == _theirs(mask)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (200, 300), (4000, 5000)])
@pytest.mark.parametrize("value", [False, True])
def test_nothing_and_everything(shape: tuple[int, int], value: bool) -> None:
    mask = np.full(shape, value)
    assert rle.encode(mask) == _theirs(mask)


def test_runs_of_every_length_of_number() -> None:
    for run in (15, 16, 17, 511, 512, 513, 16_383, 16_384, 524_287, 524_288, 16_777_215, 16_777_216):
        mask = np.zeros((run + 3, 1), dtype=bool)
        mask[1 : run + 1] = True
        assert rle.encode(mask) == _theirs(mask)
        assert rle.encode(np.hstack([~mask[:400], mask[:400]])) == _theirs(np.hstack([~mask[:400], mask[:400]]))


@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=30)))
def test_a_known_box_changes_nothing(mask: NDArray[np.bool_]) -> None:
    box = rle.bbox_xyxy(mask)
    assert rle.encode(mask, box) == rle.encode(mask)
    rows, columns = np.nonzero(mask)
    expected = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) if rows.size else (0, 0, 0, 0)
    assert box == expected
