"""Whole volumes: order of slices, edges, objects with one identity, and no oracle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from infra.errors import UsageError
from infra.storage import write_json
from tests.training.made_volumes import Case, counted, write_volumes
from tests.training.small import small_config, small_model
from training.decision import Decision
from training.predict import Segmenter
from training.sam3.checkpoint import save_weights
from training.sam3.tokenizer import PromptTokenizer
from training.spec import CONFIG, TOKENIZER, WEIGHTS
from training.volumes.cases import volumes_of
from training.volumes.consistency import Consistency, consistent, linked, regions, smoothed, tracks_of
from training.volumes.evidence import Evidence, gather, plain
from training.volumes.score import interval, mean_over_datasets, score_volume
from training.volumes.serve import segment_volume

DECISION = Decision(mask_threshold=0.5, presence_threshold=0.5)
GRID = 32


def evidence_of(mask: np.ndarray, presence: list[float]) -> Evidence:
    said = np.asarray(presence, dtype=np.float32)
    return Evidence(np.where(mask, 4.0, -4.0).astype(np.float32), said, said)


def wedge(slices: int = 9) -> np.ndarray:
    """Asymmetric in all three axes: a bar that grows with the slice and drifts to the right."""
    mask = np.zeros((slices, GRID, GRID), dtype=bool)
    for number in range(2, slices):
        mask[number, 4 : 8 + number, 3 + number : 9 + 2 * number - 2] = True
    return mask


def test_volumes_come_by_slice_index_though_rows_lie_in_any_order(tmp_path: Path) -> None:
    mask = wedge()
    cases = [
        Case("b", counted(9, 50, GRID, GRID), {"wedge": mask}, split="val", left_out=(4,)),
        Case("a", counted(9, 10, GRID, GRID), {"wedge": mask[:, ::-1]}, split="val"),
        Case("other", counted(5, 10, GRID, GRID), {"wedge": mask[:5]}, split="train"),
        Case("single", counted(1, 10, GRID, GRID), {"wedge": mask[3:4]}, split="val"),
        Case("picture", counted(3, 10, GRID, GRID), {"wedge": mask[3:6]}, split="val", axis=None),
    ]
    write_volumes(tmp_path, "Alpha", cases, rows_a_shard=5, rows_a_group=2, seed=4)
    first, second = volumes_of(tmp_path, "Alpha", "val")
    assert [first.case_id, second.case_id] == ["a", "b"]
    assert [int(each[0, 0, 0]) for each in first.pixels] == list(range(10, 19))
    np.testing.assert_array_equal(first.truth["wedge"], mask[:, ::-1])
    assert second.indices == [0, 1, 2, 3, 5, 6, 7, 8]
    np.testing.assert_array_equal(second.truth["wedge"], np.delete(mask, 4, axis=0))
    assert first.known["wedge"].all()


def test_regions_equal_another_implementation() -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    draw = np.random.default_rng(0)
    for share in (0.2, 0.4, 0.6):
        mask = draw.random((37, 23)) < share
        labels, count = regions(mask)
        expected, number = ndimage.label(mask, structure=np.ones((3, 3)))
        assert count == number
        pairs = set(zip(labels.ravel().tolist(), expected.ravel().tolist(), strict=True))
        assert len(pairs) == count + 1 if not mask.all() else count  # one to one, background included


def test_objects_keep_their_number_through_the_volume() -> None:
    """Two objects drift past one another without touching; each is one track, from its first slice to its last."""
    mask = np.zeros((8, GRID, GRID), dtype=bool)
    for number in range(8):
        mask[number, 4:10, 2 + 2 * number : 10 + 2 * number] = True
        if 2 <= number < 7:
            mask[number, 18:24, 20 - 2 * number : 28 - 2 * number] = True
    labels = linked(mask, 0.25)
    assert set(np.unique(labels[:, :12])) == {0, 1}
    assert set(np.unique(labels[:, 14:])) == {0, 2}
    first, second = tracks_of(labels, np.full(8, 0.9, dtype=np.float32))
    assert (first.first, first.last, first.voxels) == (0, 7, 8 * 48)
    assert (second.first, second.last) == (2, 6)


def test_regions_that_barely_touch_are_not_one_object() -> None:
    mask = np.zeros((2, GRID, GRID), dtype=bool)
    mask[0, 4:12, 4:12] = True
    mask[1, 4:12, 11:19] = True  # one column of eight is shared
    assert linked(mask, 0.25).max() == 2
    assert linked(mask, 0.1).max() == 1


def test_a_lone_false_alarm_goes_and_a_missed_slice_comes_back() -> None:
    truth = wedge()
    said = truth.copy()
    presence = [0.05, 0.05, 0.9, 0.9, 0.9, 0.3, 0.9, 0.9, 0.9]  # slice 5 was missed
    evidence = evidence_of(said, presence)
    assert not plain(evidence, GRID, GRID, DECISION)[5].any()
    labels, tracks = consistent(evidence, GRID, GRID, DECISION, Consistency(window=1, shortest=3, strong=0.95))
    np.testing.assert_array_equal(labels[2:8].any(axis=(1, 2)), np.ones(6, dtype=bool))
    assert len(tracks) == 1
    alarm = np.zeros_like(truth)
    alarm[6, 20:24, 2:6] = True
    lone = evidence_of(truth | alarm, [0.05, 0.05, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9])
    labels, tracks = consistent(lone, GRID, GRID, DECISION, Consistency(window=0, shortest=2, strong=0.95))
    assert [(track.first, track.last) for track in tracks] == [(2, 8)]
    np.testing.assert_array_equal(labels > 0, truth)
    kept, _ = consistent(lone, GRID, GRID, DECISION, Consistency(window=0, shortest=2, strong=0.85))
    np.testing.assert_array_equal(kept > 0, truth | alarm)  # short but strong


def test_a_volume_turned_over_gives_the_answer_turned_over() -> None:
    draw = np.random.default_rng(1)
    evidence = Evidence(
        draw.normal(0, 2, (9, GRID, GRID)).astype(np.float32), draw.random(9).astype(np.float32), np.ones(9, np.float32)
    )
    turned = Evidence(evidence.logits[::-1].copy(), evidence.presence[::-1].copy(), evidence.score)
    settings = Consistency(window=2, shortest=3, strong=0.9)
    one, _ = consistent(evidence, GRID, GRID, DECISION, settings)
    other, _ = consistent(turned, GRID, GRID, DECISION, settings)
    np.testing.assert_array_equal(one > 0, other[::-1] > 0)


def test_smoothing_repeats_the_edges_and_keeps_what_is_alike() -> None:
    flat = evidence_of(np.ones((5, 4, 4), dtype=bool), [0.8] * 5)
    for window in (1, 2, 7):
        found = smoothed(flat, window)
        np.testing.assert_allclose(found.presence, 0.8, atol=1e-5)
        np.testing.assert_allclose(found.logits, 4.0, atol=1e-5)
    one = evidence_of(np.ones((5, 4, 4), dtype=bool), [0.5, 0.9, 0.5, 0.5, 0.5])
    logit = np.log(9) * np.array([0.25, 0.5, 0.25, 0, 0])
    np.testing.assert_allclose(smoothed(one, 1).presence, 1 / (1 + np.exp(-logit)), atol=1e-5)
    assert smoothed(one, 0) is one


def volume_of(tmp_path: Path, **changes: Any) -> Any:
    write_volumes(tmp_path, "Alpha", [Case("a", counted(9, 10, GRID, GRID), {"wedge": wedge()}, split="val")])
    [volume] = volumes_of(tmp_path, "Alpha", "val")
    return replace(volume, **changes)


def test_dice_is_of_the_whole_volume_and_alarms_of_slices_known_to_be_empty(tmp_path: Path) -> None:
    volume = volume_of(tmp_path)
    assert score_volume(volume, {"wedge": wedge()}, 1.0).dice == 1.0
    said = wedge()
    said[0, 1, 1] = True
    said[8] = False
    score = score_volume(volume, {"wedge": said}, 1.0)
    true, marked = int(wedge().sum()), int(said.sum())
    assert score.dice == pytest.approx(2 * (marked - 1) / (true + marked))
    assert score.alarms == 0.5  # one of the two empty slices
    unknown = np.ones(9, dtype=bool)
    unknown[[0, 8]] = False
    score = score_volume(replace(volume, known={"wedge": unknown}), {"wedge": said}, 1.0)
    assert (score.dice, score.alarms) == (1.0, 0.0)


def test_intervals_are_over_volumes_and_none_of_one() -> None:
    assert interval({"a": [0.5], "b": [0.7]}) is None
    low, high = interval({"a": [0.2, 0.4, 0.6, 0.8]}) or (0, 0)
    assert 0.2 <= low < 0.5 < high <= 0.8
    scores = [score_volume_like("a", 0.2), score_volume_like("a", 0.4), score_volume_like("b", 0.9)]
    assert mean_over_datasets(scores) == pytest.approx(0.6)


def score_volume_like(dataset: str, dice: float) -> Any:
    from training.volumes.score import VolumeScore

    return VolumeScore(dataset, "x", dice, None, 0.0)


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    class Words:
        def __call__(self, texts: list[str]) -> torch.Tensor:
            return torch.tensor([[1 + len(text) % 200, 2, *[0] * 30] for text in texts])

    return Segmenter(small_model(), Words(), 56, Decision(0.5, 0.0))  # type: ignore[arg-type]


def test_serving_a_volume_is_serving_its_slices_where_nothing_is_averaged(segmenter: Segmenter) -> None:
    draw = np.random.default_rng(3)
    volume = draw.integers(0, 255, (11, 40, 30), np.uint8)
    asked = ["disc", "square here"]
    found = segment_volume(segmenter, volume, asked, Consistency(window=0, shortest=1, strong=0.0))
    for number, pixels in enumerate(volume):
        for whole, single in zip(found, segmenter.segment(pixels, asked), strict=True):
            assert (whole["mask"][number] != single["mask"]).mean() < 1e-3  # batches round otherwise
    assert [one["prompt"] for one in found] == asked


def test_a_model_of_neighbours_sees_them_when_a_volume_is_served(segmenter: Segmenter) -> None:
    draw = np.random.default_rng(4)
    volume = draw.integers(0, 255, (5, 40, 30), np.uint8)
    beside = Segmenter(segmenter.model, segmenter.tokenizer, 56, segmenter.decision, neighbours=1)
    [found] = gather(beside, list(volume), ["disc"])
    for number in range(5):
        stack = np.stack([volume[max(number - 1, 0)], volume[number], volume[min(number + 1, 4)]], axis=-1)
        expected = segmenter.decode(segmenter.encode([stack]), ["disc"], [0])
        np.testing.assert_allclose(found.logits[number], expected.semantic[0].numpy(), atol=2e-4)
    [flat] = gather(segmenter, list(volume), ["disc"])
    assert np.abs(flat.logits - found.logits).max() > 1e-3


def test_what_is_no_volume_is_refused(segmenter: Segmenter) -> None:
    with pytest.raises(UsageError, match=r"float64 \(3, 4, 4\)"):
        segment_volume(segmenter, np.zeros((3, 4, 4)), ["disc"])  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="slices, height, width"):
        segment_volume(segmenter, np.zeros((4, 4), np.uint8), ["disc"])


def test_a_model_folder_says_whether_its_slices_come_with_neighbours(tmp_path: Path) -> None:
    save_weights(tmp_path / WEIGHTS, small_model().state_dict())
    PromptTokenizer.from_installed().save(tmp_path / TOKENIZER)
    config = {"sam3": small_config(), "image_size": 56}
    for written, expected in (({}, 0), ({"neighbours": 2}, 2)):
        write_json(tmp_path / CONFIG, {**config, **written})
        assert Segmenter.load(tmp_path).neighbours == expected
