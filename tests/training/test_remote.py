"""Training data behind a URL: the same batches as from a folder, in a bounded cache."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import fsspec
import pytest
import torch

from infra.errors import DataError
from tests.served import Served, served
from tests.training.made import write_dataset
from training.fit import open_store, open_stream, prepare
from training.recipes import tiny
from training.spec import FitSpec, LoaderSettings

SHARDS, SAMPLES, BATCH = 12, 400, 8


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("remote")
    write_dataset(folder, "Alpha", SAMPLES, shards=SHARDS)
    with served(folder) as found:
        yield found


def _spec(root: str, run: Path, **loader: int) -> FitSpec:
    recipe = replace(tiny(), stream="shards", image_size=16, mask_size=8, global_batch=BATCH, shuffle_samples=64)
    return FitSpec(recipe, root, ["Alpha"], str(run), loader=LoaderSettings(**loader))


@pytest.mark.parametrize("kind", ["shards", "prepared"])
def test_batches_are_those_of_the_folder(server: Served, tmp_path: Path, kind: str) -> None:
    streams = []
    for number, root in enumerate((str(server.folder), server.url, f"file://{server.folder}")):
        spec = _spec(root, tmp_path / str(number), threads=number)
        spec = replace(spec, recipe=replace(spec.recipe, stream=kind))
        prepare(spec, "train", 0, 1)
        streams.append(open_stream(spec, "train", 0, 1))
    for batches in islice(zip(*streams, strict=True), 12):
        for batch in batches[1:]:
            assert batch.sample_ids == batches[0].sample_ids
            assert torch.equal(batch.pixel_values, batches[0].pixel_values)
            assert torch.equal(batch.targets.masks, batches[0].targets.masks)
    # the place of one is the place of the other: data is told by its hashes, not by where it lies
    streams[0].load_state_dict(streams[1].state_dict(5))


def test_an_epoch_fits_a_cache_smaller_than_the_data_and_brings_each_shard_once(server: Served, tmp_path: Path) -> None:
    sizes = {path.name: path.stat().st_size for path in (server.folder / "Alpha").glob("shard-*")}
    # two spans of four shards and the one that arrives
    limit = sum(sorted(sizes.values())[-9:])
    assert limit < sum(sizes.values())
    spec = _spec(server.url, tmp_path, threads=2, cache_bytes=limit)
    server.asked.clear()
    most = 0
    for _ in islice(open_stream(spec, "train", 0, 1), SAMPLES // BATCH):
        held = [path for path in (tmp_path / "cache" / "shards").iterdir() if path.suffix != ".lock"]
        most = max(most, sum(_size(path) for path in held))
    assert most <= limit
    # shards of the next epoch may be on their way already: none comes a third time, most come once
    asked = [count for name, count in server.asked.items() if name in sizes]
    assert len(asked) == SHARDS
    assert max(asked) <= 2
    assert sum(asked) <= SHARDS + 4


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def test_the_next_shards_are_on_their_way_before_they_are_read(server: Served, tmp_path: Path) -> None:
    stream = open_stream(_spec(server.url, tmp_path), "train", 0, 1)
    next(iter(stream))
    deadline = time.monotonic() + 30
    shards = tmp_path / "cache" / "shards"
    # one batch lies in at most 8 blocks of one span; the next span comes without being asked for by a sample
    while sum(path.suffix == "" for path in shards.iterdir()) < 8:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_remote_shards_are_checked_before_they_are_read(server: Served, tmp_path: Path) -> None:
    store = fsspec.filesystem("memory")
    listed = {path.name: path.read_bytes() for path in (server.folder / "Alpha").iterdir()}

    def put(name: str, **changed: bytes | None) -> FitSpec:
        files = {**listed, **{key.replace("_", "-") + ".parquet": value for key, value in changed.items()}}
        store.pipe({f"/{name}/Alpha/{file}": value for file, value in files.items() if value is not None})
        return _spec(f"memory://{name}", tmp_path / name)

    with pytest.raises(DataError, match=r"shard-00003\.parquet: expected a file, found nothing there"):
        prepare(put("missing", shard_00003=None), "train", 0, 1)
    payload = listed["shard-00003.parquet"]
    middle = len(payload) // 2
    flipped = payload[:middle] + bytes([payload[middle] ^ 1]) + payload[middle + 1 :]
    changes: dict[str, dict[str, bytes | None]] = {
        "flipped": {"shard_00003": flipped},
        "cut": {"shard_00003": payload[:-1]},
        "swapped": {"shard_00003": listed["shard-00004.parquet"], "shard_00004": payload},
    }
    for name, changed in changes.items():
        spec = put(name, **changed)
        prepare(spec, "train", 0, 1)
        checked = open_store(spec)
        shard = checked.shards("Alpha")[3]
        with pytest.raises(DataError, match=rf"Alpha: shard-00003\.parquet: expected SHA-256 {shard.sha256}, found"):
            checked.open(shard)
        with pytest.raises(DataError, match=r"Alpha: shard-0000[34]\.parquet: expected SHA-256"):
            list(islice(open_stream(spec, "train", 0, 1), SAMPLES // BATCH))
