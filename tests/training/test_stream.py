from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch

from infra.errors import DataError
from tests.training.made import write_dataset
from training.fit import FitSpec, open_samples, prepare, wording_of
from training.prepared import check_shard, shards_of
from training.recipes import tiny
from training.sam3.model import PADDING_LABEL
from training.sam3.tokenizer import PromptTokenizer
from training.stream import Batch, BatchStream


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> FitSpec:
    root = tmp_path_factory.mktemp("data")
    write_dataset(root, "Alpha", 12)
    write_dataset(root, "Beta", 20, first=50)
    spec = FitSpec(replace(tiny(), global_batch=4), str(root), ["Alpha", "Beta"], str(tmp_path_factory.mktemp("run")))
    prepare(spec, "train", 0, 1)
    return spec


def _stream(spec: FitSpec, rank: int = 0, world_size: int = 1, first_step: int = 0) -> BatchStream:
    return BatchStream(
        open_samples(spec, "train"),
        wording_of(Path(spec.data_root), spec.datasets),
        spec.recipe,
        PromptTokenizer.from_installed(),
        rank=rank,
        world_size=world_size,
        first_step=first_step,
    )


def _equal(first: Batch, second: Batch) -> bool:
    return first.sample_ids == second.sample_ids and torch.equal(first.pixel_values, second.pixel_values)


def test_a_resumed_stream_goes_on_where_it_was(spec: FitSpec) -> None:
    whole = list(islice(_stream(spec), 8))
    resumed = list(islice(_stream(spec, first_step=5), 3))
    assert all(_equal(a, b) for a, b in zip(whole[5:], resumed, strict=True))


def test_two_ranks_read_together_what_one_reads(spec: FitSpec) -> None:
    alone = list(islice(_stream(spec), 6))
    ranks = [list(islice(_stream(spec, rank, 2), 6)) for rank in range(2)]
    for step, batch in enumerate(alone):
        assert batch.sample_ids == ranks[0][step].sample_ids + ranks[1][step].sample_ids
        halves = torch.cat([ranks[0][step].pixel_values, ranks[1][step].pixel_values])
        assert torch.equal(batch.pixel_values, halves)


def test_targets_belong_to_their_prompts(spec: FitSpec) -> None:
    for batch in islice(_stream(spec), 12):
        targets = batch.targets
        assert len(targets.boxes_cxcywh) == len(targets.masks) == len(targets.prompt)
        assert len(batch.image_of_prompt) == len(batch.text_of_prompt) == len(targets.semantic)
        has_object = torch.zeros(len(targets.semantic), dtype=torch.bool)
        has_object[targets.prompt] = True
        # a prompt whose object is not there is a true negative: its map is empty too
        assert float(targets.semantic[~has_object].sum()) < 4
        # boxes are only ever given where there is something to box
        assert not ((batch.box_labels != PADDING_LABEL).any(1) & ~has_object).any()


def test_every_step_has_true_negatives_somewhere(spec: FitSpec) -> None:
    absent = 0
    for batch in islice(_stream(spec), 10):
        absent += len(batch.targets.semantic) - len(set(batch.targets.prompt.tolist()))
    assert absent > 0


def test_a_damaged_shard_is_found_before_it_is_read(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path, "Alpha", 3)
    file = folder / "shard-00000.parquet"
    payload = bytearray(file.read_bytes())
    payload[len(payload) // 2] ^= 1
    file.write_bytes(bytes(payload))
    with pytest.raises(DataError, match=r"Alpha: shard-00000\.parquet: expected SHA-256"):
        check_shard(shards_of(tmp_path, "Alpha")[0])
