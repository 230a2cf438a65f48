from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.training.made import picture, write_dataset
from training.prepared import Part, coverage, decode_image, prepare_shard, rows_of, shards_of


@pytest.mark.parametrize("of", [1, 2, 3, 7, 40])
def test_parts_cover_a_split_once(tmp_path: Path, of: int) -> None:
    write_dataset(tmp_path, "Alpha", 20, splits=("train", "val", "test"))
    shard = shards_of(tmp_path, "Alpha")[0]
    wanted = [row["sample_id"] for row in rows_of(shard, "test")]
    parts = [[row["sample_id"] for row in rows_of(shard, "test", Part(number, of))] for number in range(of)]
    assert sorted(sample for part in parts for sample in part) == sorted(wanted)
    assert len(wanted) == 6


def test_prepared_arrays_show_the_sample(tmp_path: Path) -> None:
    write_dataset(tmp_path, "Alpha", 1)
    folder = prepare_shard(
        shards_of(tmp_path, "Alpha")[0], "train", tmp_path / "out", image_size=64, mask_size=32, max_instances=4
    )
    image, masks = picture(0)
    assert np.array_equal(np.load(folder / "images.npy")[0, :, :, 0], image)
    maps = np.load(folder / "maps.npy")
    assert {int((found > 127).sum()) for found in maps} == {int(mask.sum()) for mask in masks.values()}


def test_coverage_of_a_quarter_cell() -> None:
    mask = np.zeros((8, 8), dtype=bool)
    mask[0, 0] = True
    assert coverage(mask, 4)[0, 0] in (63, 64)


def test_a_broken_picture_is_an_error() -> None:
    with pytest.raises(OSError, match="cannot identify"):
        decode_image(b"not a picture")
