"""Data and checkpoints in an object store: a real S3 server, s3fs, and nothing but the usual AWS variables."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from infra import remote
from infra.compute import ray_session
from infra.errors import ServiceError, UsageError
from infra.params import check_params, load_params
from infra.settings import Settings
from tests.s3 import KEY, SECRET, client, refuse_everybody, s3
from tests.training.made import write_dataset
from training import launch
from training.checkpoints import CheckpointStore, CheckpointWriter
from training.failures import verdict
from training.fit import open_stream, prepare
from training.recipes import tiny
from training.spec import FitSpec, LoaderSettings

SHARDS, SAMPLES, BATCH = 12, 200, 8
PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_dataset(folder, "Alpha", SAMPLES, shards=SHARDS, splits=("train", "train", "train", "val"))
    return folder


@pytest.fixture
def server(data: Path) -> Iterator[str]:
    with s3("segments", "runs") as address:
        client().put(str(data), "segments/data", recursive=True)
        yield address


def _spec(root: str, run: Path, **loader: int) -> FitSpec:
    recipe = replace(tiny(), stream="shards", image_size=16, mask_size=8, global_batch=BATCH, shuffle_samples=64)
    return FitSpec(recipe, root, ["Alpha"], str(run), loader=LoaderSettings(**loader))


def test_batches_are_those_of_the_folder_in_a_cache_smaller_than_the_data(
    server: str, data: Path, tmp_path: Path
) -> None:
    sizes = sorted(path.stat().st_size for path in (data / "Alpha").glob("shard-*"))
    limit = sum(sizes[-9:])
    assert limit < sum(sizes)
    near = _spec(str(data), tmp_path / "near")
    far = _spec("s3://segments/data", tmp_path / "far", cache_bytes=limit, threads=2)
    prepare(far, "train", 0, 1)
    most = 0
    for one, other in islice(
        zip(open_stream(near, "train", 0, 1), open_stream(far, "train", 0, 1), strict=True), SAMPLES // BATCH
    ):
        assert one.sample_ids == other.sample_ids
        assert torch.equal(one.pixel_values, other.pixel_values)
        assert torch.equal(one.targets.masks, other.targets.masks)
        held = [path for path in (tmp_path / "far" / "cache" / "shards").iterdir() if path.suffix != ".lock"]
        most = max(most, sum(path.stat().st_size for path in held if path.exists()))
    assert 0 < most <= limit


def test_checkpoints_come_and_go_in_a_bucket(server: str) -> None:
    store = CheckpointStore("s3://runs/one")
    store.try_writing()
    assert not client().exists("runs/one"), "the trial leaves nothing"
    writer = CheckpointWriter(store)
    for step in (3, 6, 9):
        writer.save(step, {"weights": torch.full((4,), float(step)), "global_step": step})
    writer.wait()
    assert [each.step for each in store.complete()] == [6, 9]
    with store.opened() as found:
        assert found is not None
        assert torch.load(found[1], weights_only=True)["weights"].tolist() == [9.0] * 4
    # a damaged one is passed over for the one before it
    payload = client().cat_file("runs/one/step-00000009.ckpt")
    client().pipe_file("runs/one/step-00000009.ckpt", payload[:-1])
    with store.opened() as found:
        assert found is not None
        assert found[0] == 6
    client().pipe_file("runs/one/step-00000012.ckpt", b"half of it")
    store.clean()
    assert not client().exists("runs/one/step-00000012.ckpt")
    store.remove()
    assert client().find("runs/one") == []


def test_a_bucket_that_is_not_there_is_said_and_never_made(server: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"1")
    for ask in (
        lambda: remote.put_file(file, "s3://runz/one/file"),
        lambda: CheckpointStore("s3://runz/one").try_writing(),
        lambda: remote.file_bytes("s3://runz/one/file"),
        lambda: list(remote.blocks_of("s3://runz/one/file")),
        lambda: prepare(_spec("s3://runz/data", tmp_path), "train", 0, 1),
    ):
        with pytest.raises(UsageError, match=r"s3://runz/.* expected a bucket that exists.*Create it or correct"):
            ask()
    assert not client().exists("runz")


def test_a_bucket_that_vanishes_stops_the_run_with_its_name(server: str) -> None:
    writer = CheckpointWriter(CheckpointStore("s3://runs/one"))
    writer.save(1, {"global_step": 1})
    writer.wait()
    client().rm("runs", recursive=True)
    writer.save(2, {"global_step": 2})
    with pytest.raises(UsageError, match=r"s3://runs/one/step-00000002\.ckpt: expected a bucket that exists") as told:
        writer.wait()
    # no retry brings it back: the run is not begun again and again
    assert verdict({0: told.value}) is told.value


def test_what_the_credentials_do_not_open_is_said_without_them(server: str, tmp_path: Path) -> None:
    refuse_everybody(server)
    file = tmp_path / "file"
    file.write_bytes(b"1")
    for ask in (
        lambda: remote.list_files("s3://segments/data"),
        lambda: remote.file_bytes("s3://segments/data/Alpha/dataset.json"),
        lambda: remote.put_file(file, "s3://runs/one/file"),
        lambda: prepare(_spec("s3://segments/data", tmp_path), "train", 0, 1),
    ):
        with pytest.raises(UsageError, match=r"expected credentials that may read.*AWS_ACCESS_KEY_ID") as told:
            ask()
        assert SECRET not in str(told.value)


def test_a_server_that_is_gone_is_worth_another_try() -> None:
    with s3("runs") as address, pytest.MonkeyPatch.context() as patch:
        # a port that nobody listens on
        patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        patch.setenv("AWS_MAX_ATTEMPTS", "1")
        assert address
        with pytest.raises(ServiceError, match=r"expected a store that answers.*AWS_ENDPOINT_URL") as told:
            remote.file_bytes("s3://runs/one")
        assert verdict({0: told.value}) is None


def test_an_address_with_credentials_is_refused_and_not_quoted() -> None:
    given = load_params(PROJECT / "params.yaml").model_dump()
    for key in ("storage", "data_root"):
        for value in (f"s3://{KEY}:hunter2secret@bucket/x", "https://host/x?X-Amz-Signature=hunter2secret"):
            wrong = {**given, "train": {**given["train"], key: value}}
            with pytest.raises(UsageError, match=rf"train\.{key}: expected an address without credentials") as told:
                check_params(wrong, "params.yaml")
            assert "hunter2secret" not in str(told.value)
    with pytest.raises(UsageError, match=r"train\.data_root: expected an address such as s3://"):
        check_params({**given, "train": {**given["train"], "data_root": "data"}}, "params.yaml")


@pytest.mark.slow
def test_a_run_reads_from_one_bucket_and_keeps_its_place_in_another(server: str, tmp_path: Path) -> None:
    params: dict[str, Any] = {
        "recipe": "tiny",
        "steps": 2,
        "workers": 1,
        "storage": "s3://runs/checkpoints",
        "overrides": {"global_batch": 4, "checkpoint_every": 1},
    }
    kept: list[list[str]] = []
    with ray_session(tmp_path / "state", Settings(num_cpus=2)):
        record = launch.run_training(
            data_root="s3://segments/data",
            datasets=["Alpha"],
            out=tmp_path / "candidate",
            params=params,
            run_dir=tmp_path / "run",
            progress=lambda _: kept.append(client().find("runs")),
            loader=LoaderSettings(cache_bytes=32 << 20),
        )
        with pytest.raises(UsageError, match="expected a bucket that exists"):
            launch.run_training(
                data_root="s3://segments/data",
                datasets=["Alpha"],
                out=tmp_path / "other",
                params={**params, "seed": 8, "storage": "s3://runz/checkpoints"},
                run_dir=tmp_path / "run",
            )
    assert record["steps"] == 2
    assert any("checkpoints/" in name for names in kept for name in names), "no checkpoint was seen in the bucket"
    assert client().find("runs") == [], "a run that is over leaves no checkpoints"
    decision = json.loads((tmp_path / "candidate" / "config.json").read_text())["decision"]
    assert decision, "thresholds are chosen on the validation split of the bucket"
    for path in tmp_path.rglob("*"):
        if path.is_file() and path.stat().st_size < 8 << 20:
            payload = path.read_bytes()
            assert SECRET.encode() not in payload, path
            assert KEY.encode() not in payload, path
