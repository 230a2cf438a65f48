"""Sets of instances: matching, F1, panoptic quality and COCO's average precision, by hand and against pycocotools."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest

from infra.statistics import whole
from training.scoring.instances import (
    Crop,
    Matching,
    average_precision,
    f1,
    iou_matrix,
    match,
    panoptic_quality,
)


def square(top: int, left: int, side: int, size: int = 40) -> np.ndarray:
    mask = np.zeros((size, size), dtype=bool)
    mask[top : top + side, left : left + side] = True
    return mask


def matched(truth: list[np.ndarray], predicted: list[np.ndarray], scores: list[float], least: float = 0.5) -> Matching:
    ious = iou_matrix([Crop.of(one) for one in truth], [Crop.of(one) for one in predicted])
    return match(ious, scores, [score > least for score in scores])


def test_overlap_of_cut_masks_is_that_of_whole_ones() -> None:
    draw = np.random.default_rng(0)
    truth = [draw.random((20, 30)) < share for share in (0.02, 0.3, 0.0)]
    predicted = [draw.random((20, 30)) < share for share in (0.5, 0.01)]
    wanted = [[(a & b).sum() / max(1, (a | b).sum()) for b in predicted] for a in truth]
    found = iou_matrix([Crop.of(one) for one in truth], [Crop.of(one) for one in predicted])
    np.testing.assert_allclose(found, wanted)


def test_three_objects_two_found_one_false() -> None:
    truth = [square(0, 0, 10), square(20, 0, 10), square(0, 20, 10)]
    # exact; moved by 2 rows: 80 / 120; nothing there; below the threshold of the model
    predicted = [square(0, 0, 10), square(22, 0, 10), square(30, 30, 6), square(0, 20, 10)]
    found = matched(truth, predicted, [0.9, 0.8, 0.7, 0.3])
    assert (found.truth, found.predicted, found.matched) == (3, 3, 2)
    assert whole(f1([found]), 1) == pytest.approx(2 * 2 / 6)
    assert whole(panoptic_quality([found]), 1) == pytest.approx((1 + 2 / 3) / 3)
    # at 0.5: hit, hit, miss, hit: precision 1, 1, 2/3, 3/4 at recall 1/3, 2/3, 2/3, 1
    assert whole(average_precision([found], (0.5,)), 1) == pytest.approx((67 * 1 + 34 * 0.75) / 101)


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (Matching(0, 0, 0, 0.0), None),  # nothing there, nothing said
        (Matching(0, 2, 0, 0.0, [0.9, 0.8], [0, 0]), 0.0),  # all false
        (Matching(3, 0, 0, 0.0), 0.0),  # all missed
        (Matching(1, 1, 1, 1.0, [0.9], [1023]), 1.0),  # one, found exactly
    ],
)
def test_empty_cases(found: Matching, wanted: float | None) -> None:
    assert whole(f1([found]), 1) == wanted
    assert whole(panoptic_quality([found]), 1) == wanted
    # AP is about objects: where there are none it has nothing to find
    assert whole(average_precision([found]), 1) == (None if found.truth == 0 else wanted)


def test_one_object_is_matched_once() -> None:
    found = matched([square(0, 0, 10)], [square(0, 0, 10), square(0, 0, 10)], [0.9, 0.8])
    assert (found.matched, found.predicted) == (1, 2)
    assert found.hits == [1023, 0]


def test_pycocotools_agrees() -> None:
    coco = pytest.importorskip("pycocotools.coco")
    evaluate = pytest.importorskip("pycocotools.cocoeval")
    masks = pytest.importorskip("pycocotools.mask")
    draw = np.random.default_rng(4)
    images, annotations, results, found = [], [], [], []
    for image in range(1, 13):
        truth = [square(*draw.integers(0, 25, 2), int(draw.integers(4, 14))) for _ in range(draw.integers(0, 5))]
        kept = [one for one in truth if draw.random() < 0.8]
        predicted = [np.roll(one, draw.integers(-3, 3, 2), (0, 1)) for one in kept]
        predicted += [square(*draw.integers(0, 30, 2), 6) for _ in range(draw.integers(0, 3))]
        scores = draw.random(len(predicted)).tolist()
        found.append(matched(truth, predicted, scores, 0.0))
        images.append({"id": image, "height": 40, "width": 40})
        for one in truth:
            encoded = masks.encode(np.asfortranarray(one.astype(np.uint8)))
            number = len(annotations) + 1
            about = {"area": int(one.sum()), "iscrowd": 0, "bbox": masks.toBbox(encoded).tolist()}
            annotations.append({"id": number, "image_id": image, "category_id": 1, "segmentation": encoded, **about})
        for one, score in zip(predicted, scores, strict=True):
            encoded = masks.encode(np.asfortranarray(one.astype(np.uint8)))
            results.append({"image_id": image, "category_id": 1, "segmentation": encoded, "score": score})
    with contextlib.redirect_stdout(io.StringIO()):
        truth_set = coco.COCO()
        truth_set.dataset = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "x"}]}
        truth_set.createIndex()
        judge = evaluate.COCOeval(truth_set, truth_set.loadRes(results), "segm")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    assert whole(average_precision(found), len(found)) == pytest.approx(judge.stats[0], abs=1e-6)
    assert whole(average_precision(found, (0.5,)), len(found)) == pytest.approx(judge.stats[1], abs=1e-6)
