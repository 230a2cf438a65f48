"""2.5D: a slice carries the slices below and above it, and nothing else changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from infra.errors import UsageError
from tests.training.made_volumes import Case, counted, write_volumes
from training import recipes
from training.augment import Knobs, augment
from training.fit import open_samples, open_stream
from training.neighbours import beside, pictures, stacks_of_volume
from training.prepared import rows_of, shards_of
from training.recipes import Recipe
from training.spec import FitSpec


def spec_of(root: Path, run: Path, recipe: Recipe, datasets: list[str]) -> FitSpec:
    return FitSpec(recipe, str(root), datasets, str(run))


def recipe_of(stream: str, neighbours: int, **changes: Any) -> Recipe:
    return replace(
        recipes.tiny(),
        neighbours=neighbours,
        stream=stream,  # type: ignore[arg-type]
        augment={},
        global_batch=2,
        most_visits=0,
        shuffle_samples=64,
        **changes,
    )


def channels_of_samples(spec: FitSpec) -> dict[str, tuple[int, ...]]:
    """sample_id -> the value of each channel of its picture, which is the same everywhere."""
    samples = open_samples(spec, "train")
    samples.follow(spec.recipe)
    found: dict[str, tuple[int, ...]] = {}
    for position in range(600):
        sample = samples.at(position)
        picture = np.asarray(sample.image())
        assert all(len(np.unique(channel)) == 1 for channel in picture.transpose(2, 0, 1))
        found[sample.sample_id] = tuple(picture[0, 0].tolist())
    return found


def mask_on(slices: list[int], of: int, height: int = 24, width: int = 40) -> np.ndarray:
    mask = np.zeros((of, height, width), dtype=bool)
    mask[slices, 4:12, 5:30] = True
    return mask


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Two volumes with rows in a random order over shards of 4 rows, a 2D case and slices in colours."""
    colours = np.repeat(counted(3, first=200)[..., None], 3, axis=3).copy()
    colours[..., 1] += 10
    cases = [
        Case("a", counted(7, 10), {"disc": mask_on([0, 1, 2, 3, 4, 5, 6], 7)}),
        Case("b", counted(6, 100), {"disc": mask_on([0, 1, 3, 4, 5], 6)}, left_out=(2,)),
        Case("pictures", counted(2, 60), {"disc": mask_on([0, 1], 2)}, axis=None),
        Case("colours", colours, {"disc": mask_on([0, 1, 2], 3)}),
    ]
    write_volumes(tmp_path / "data", "Alpha", cases, rows_a_shard=4, rows_a_group=2, seed=3)
    return tmp_path / "data"


@pytest.mark.parametrize("stream", ["prepared", "shards"])
def test_a_slice_carries_those_below_and_above_whatever_shard_they_lie_in(
    mixed: Path, tmp_path: Path, stream: str
) -> None:
    found = channels_of_samples(spec_of(mixed, tmp_path / "run", recipe_of(stream, 1), ["Alpha"]))
    assert found["Alpha/a/z0003"] == (12, 13, 14)
    assert found["Alpha/a/z0000"] == (10, 10, 11)  # the edge repeats the slice
    assert found["Alpha/a/z0006"] == (15, 16, 16)
    assert found["Alpha/b/z0001"] == (100, 101, 101)  # slice 2 was left out: nothing is between
    assert found["Alpha/b/z0000"] == (100, 100, 101)  # and never a slice of the volume before it
    assert len(set(found["Alpha/pictures/None0000"])) == 1
    assert found["Alpha/colours/z0001"] == (201, 211, 201)


@pytest.mark.parametrize("stream", ["prepared", "shards"])
def test_a_wider_step_takes_the_farthest_slice_within_it(mixed: Path, tmp_path: Path, stream: str) -> None:
    found = channels_of_samples(spec_of(mixed, tmp_path / "run", recipe_of(stream, 2), ["Alpha"]))
    assert found["Alpha/a/z0003"] == (11, 13, 15)
    assert found["Alpha/a/z0001"] == (10, 11, 13)
    assert found["Alpha/b/z0001"] == (100, 101, 103)
    assert found["Alpha/b/z0004"] == (103, 104, 105)  # two below is left out, one below is there


def test_slices_without_labels_are_neighbours_though_they_are_no_samples(tmp_path: Path) -> None:
    cases = [Case("a", counted(70, 10), {"disc": mask_on([5, 6, 66], 70)})]
    write_volumes(tmp_path / "data", "Alpha", cases, rows_a_shard=50)
    recipe = recipe_of("shards", 1, negative_share=0.0)
    found = channels_of_samples(spec_of(tmp_path / "data", tmp_path / "run", recipe, ["Alpha"]))
    assert found == {
        "Alpha/a/z0005": (14, 15, 16),
        "Alpha/a/z0006": (15, 16, 17),
        "Alpha/a/z0066": (75, 76, 77),  # of the second shard
    }


@pytest.mark.parametrize("stream", ["prepared", "shards"])
def test_without_the_switch_batches_are_what_they_were_and_2d_samples_are_so_with_it(
    mixed: Path, tmp_path: Path, stream: str
) -> None:
    """Where nothing is a volume the switch changes no bit; where it is off every channel is the slice."""
    flat = [Case("p", np.random.default_rng(0).integers(0, 255, (6, 24, 40), np.uint8), {"disc": mask_on([1, 4], 6)})]
    flat[0].axis = None
    write_volumes(tmp_path / "flat", "Flat", flat)
    for root, name, first, second in ((tmp_path / "flat", "Flat", 0, 1), (mixed, "Alpha", 0, 0)):
        batches = []
        for step in (first, second):
            recipe = replace(recipe_of(stream, step), augment=dict(recipes.small().augment))
            batches.append(
                next(iter(open_stream(spec_of(root, tmp_path / f"run{step}", recipe, [name]), "train", 0, 1)))
            )
        assert torch.equal(batches[0].pixel_values, batches[1].pixel_values)
        assert torch.equal(batches[0].targets.semantic, batches[1].targets.semantic)
    found = channels_of_samples(spec_of(mixed, tmp_path / "off", recipe_of(stream, 0), ["Alpha"]))
    assert set(found["Alpha/a/z0003"]) == {13}


def test_both_streams_and_evaluation_show_a_slice_alike(tmp_path: Path) -> None:
    draw = np.random.default_rng(5)
    cases = [
        Case(name, draw.integers(0, 255, (5, 33, 50), np.uint8), {"disc": mask_on([0, 2], 5, 33, 50)}) for name in "ab"
    ]
    write_volumes(tmp_path / "data", "Alpha", cases, rows_a_shard=4, rows_a_group=3, seed=1)
    seen: list[dict[str, np.ndarray]] = []
    for stream in ("prepared", "shards"):
        recipe = recipe_of(stream, 1)
        samples = open_samples(spec_of(tmp_path / "data", tmp_path / stream, recipe, ["Alpha"]), "train")
        samples.follow(recipe)
        found = (samples.at(position) for position in range(200))
        seen.append({sample.sample_id: np.asarray(sample.image()) for sample in found})
    evaluated, in_memory = {}, {}
    for shard in shards_of(tmp_path / "data", "Alpha"):
        picture = pictures(shard, "train", 1, "pillow")
        for row in rows_of(shard, "train"):
            evaluated[row["sample_id"]] = picture(row, recipes.tiny().image_size)
            whole = cases["ab".index(row["case_id"])].pixels_zyx
            in_memory[row["sample_id"]] = stacks_of_volume(list(whole), 1)[row["slice_index"]]
            np.testing.assert_array_equal(picture(row, None), in_memory[row["sample_id"]])
    assert seen[0].keys() == seen[1].keys() == evaluated.keys()
    for name, expected in evaluated.items():
        np.testing.assert_array_equal(seen[0][name], expected)
        np.testing.assert_array_equal(seen[1][name], expected)


def test_neighbours_by_brute_force() -> None:
    draw = np.random.default_rng(2)
    for step in (1, 2, 5):
        volumes = draw.integers(-1, 4, 60)
        slices = np.empty(60, dtype=np.int64)
        for volume in range(-1, 4):
            chosen = np.flatnonzero(volumes == volume)
            slices[chosen] = draw.permutation(40)[: chosen.size]
        found = beside(volumes, slices, step)
        for row, (volume, place) in enumerate(zip(volumes, slices, strict=True)):
            within = [other for other in range(60) if volumes[other] == volume >= 0]
            below = min((slices[other], other) for other in [row, *within] if place - step <= slices[other] <= place)[1]
            above = max((slices[other], other) for other in [row, *within] if place <= slices[other] <= place + step)[1]
            assert found[row].tolist() == [below, above]


def test_augmentation_moves_the_three_slices_alike() -> None:
    """Three copies of one asymmetric slice stay equal; a mark in one channel lands where its mask does."""
    knobs = Knobs(**recipes.small().augment)
    for seed in range(8):
        slice_ = torch.zeros(48, 48)
        slice_[8:20, 5:11] = 0.8
        image = torch.stack([slice_, slice_, slice_])
        moved, semantic, _ = augment(
            image, slice_[None] / 0.8, [], knobs, modality="MR", sided=False, draw=np.random.default_rng(seed)
        )
        assert torch.equal(moved[0], moved[1])
        assert torch.equal(moved[1], moved[2])
        one = torch.zeros(3, 48, 48)
        one[2, 8:20, 5:11] = 1.0
        plain = replace(knobs, noise=0.0, blur=0.0, low_resolution=0.0, brightness=0.0, contrast=0.0, gamma=0.0)
        moved, semantic, _ = augment(
            one, one[2:], [], plain, modality="MR", sided=False, draw=np.random.default_rng(seed)
        )
        assert moved[:2].max() == 0
        torch.testing.assert_close(moved[2], semantic[0].clamp(0, 1), atol=1e-5, rtol=0)


def test_a_negative_step_is_refused() -> None:
    with pytest.raises(UsageError, match=r"neighbours.*found -1"):
        recipes.resolve({"recipe": "tiny", "overrides": {"neighbours": -1}})
