from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from infra.errors import DataError
from preprocessing import schema
from preprocessing.schema import rle
from tests.training.made import picture, write_dataset
from training.decode import union_of
from training.prepared import PreparedSamples, prepare_shard
from training.recipes import Recipe, tiny
from training.shard_samples import ShardSamples
from training.store import ShardStore

RECIPE = replace(tiny(), image_size=32, mask_size=16, stream="shards", temperature=1.0, most_visits=0)


def _samples(root: Path, recipe: Recipe = RECIPE, *, split: str = "train", buffer_bytes: int = 1 << 30) -> ShardSamples:
    names = sorted(path.name for path in root.iterdir() if (path / schema.DATASET_FILE).is_file())
    found = ShardSamples(
        ShardStore(str(root), root.parent / "scratch", 1 << 30), names, split, buffer_bytes=buffer_bytes
    )
    found.follow(recipe)
    return found


def test_a_sample_from_a_shard_is_the_prepared_sample(tmp_path: Path) -> None:
    root = tmp_path / "data"
    write_dataset(root, "Alpha", 30, shards=3, splits=("train", "val", "test"))
    samples = _samples(root)
    store = ShardStore(str(root), tmp_path / "scratch", 1)
    folders = [
        prepare_shard(shard, "train", tmp_path / "out", image_size=32, mask_size=16, max_instances=24)
        for shard in store.shards("Alpha")
    ]
    prepared = PreparedSamples({"Alpha": folders})
    places = {entry["sample_id"]: index for index, (entry, _, _) in enumerate(prepared.entries)}
    assert len(samples) == len(prepared) == 10
    for position in range(10):
        ours = samples.at(position)
        index = places.pop(ours.sample_id)
        assert np.array_equal(ours.image(), prepared.image(index))
        assert ours.concepts == sorted(prepared.entries[index][0]["concepts"])
        for concept in ours.concepts:
            for mine, theirs in zip(ours.concept(concept), prepared.concept(index, concept), strict=True):
                assert np.array_equal(mine, theirs)
    assert not places


@pytest.mark.parametrize("rows_a_group", [7, 64, 1000])
def test_row_groups_of_any_size_are_read(tmp_path: Path, rows_a_group: int) -> None:
    root = tmp_path / "data"
    write_dataset(root, "Alpha", 300, shards=2, splits=("val", "train"), rows_a_group=rows_a_group)
    samples = _samples(root)
    assert Counter(samples.sample_id(position) for position in range(150)) == {
        f"Alpha/{number:03d}": 1 for number in range(1, 300, 2)
    }


def test_each_block_is_read_once_while_the_buffer_is_large_enough(tmp_path: Path) -> None:
    root = tmp_path / "data"
    write_dataset(root, "Alpha", 400, shards=3)
    samples = _samples(root)
    for position in range(400):
        samples.at(position)
    assert samples.count.blocks == len(samples.indexes[0].block_samples)
    assert samples.count.samples == 400


def test_a_small_buffer_costs_reads_and_no_samples(tmp_path: Path) -> None:
    root = tmp_path / "data"
    write_dataset(root, "Alpha", 400, shards=3)
    roomy, tight = _samples(root), _samples(root, buffer_bytes=1)
    ids = [[samples.at(position).sample_id for position in range(400)] for samples in (roomy, tight)]
    assert ids[0] == ids[1]
    assert tight.count.blocks > roomy.count.blocks
    assert len(tight._read._blocks) == 1


def test_a_manifest_of_another_version_is_an_error(tmp_path: Path) -> None:
    root = tmp_path / "data"
    folder = write_dataset(root, "Alpha", 40, shards=1, splits=("train", "val"))
    manifest = schema.read_manifest(folder)
    rows = manifest.to_pylist()
    for row in rows:
        row["split"] = {"train": "val", "val": "train"}[row["split"]]
    pq.write_table(manifest.from_pylist(rows, schema=schema.MANIFEST_SCHEMA), folder / schema.MANIFEST_FILE)
    with pytest.raises(
        DataError, match=r"Alpha: shard-00000\.parquet: expected rows .* split 'train', found \['val'\]"
    ):
        _samples(root).at(0)
    pq.write_table(manifest.slice(0, 39), folder / schema.MANIFEST_FILE)
    with pytest.raises(DataError, match=r"Alpha: manifest\.parquet: .* found 39 rows for 40"):
        _samples(root)


def test_the_union_of_masks_is_their_pixelwise_or() -> None:
    draw = np.random.default_rng(0)
    for count in (1, 2, 30):
        masks = [draw.random((13, 21)) < 0.2 for _ in range(count)]
        masks[0][:] = count == 30
        found = union_of([rle.encode(mask) for mask in masks], 13, 21)
        assert np.array_equal(found, np.any(masks, axis=0))
    _, shown = picture(0)
    mask = shown["bright disc"]
    assert np.array_equal(union_of([rle.encode(mask)], *mask.shape), mask)
    with pytest.raises(ValueError, match="RLE covers"):
        union_of([rle.encode(mask)], 64, 63)
