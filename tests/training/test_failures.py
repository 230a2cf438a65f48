from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from infra.errors import CaseError, CheckFailed, DataError, ServiceError, UsageError
from training.failures import Losses, is_loss, verdict
from training.recipes import tiny
from training.spec import choose_strategy

PEER = RuntimeError("[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:1")


def test_a_wrong_run_stops_with_its_own_words_even_when_others_fail_with_it() -> None:
    damaged = DataError("Alpha: shard-00000.parquet: expected SHA-256 …")
    assert verdict({0: PEER, 1: damaged}) is damaged
    bug = KeyError("losses")
    assert verdict({0: bug, 1: damaged, 2: PEER}) is damaged
    assert verdict({0: PEER, 1: bug}) is bug


@pytest.mark.parametrize(
    "error",
    [
        UsageError("x"),
        DataError("x"),
        CheckFailed("loss is not finite"),
        CaseError("unreadable", "a PNG", "text"),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"),
        TypeError("x"),
    ],
)
def test_what_would_fail_again_is_no_loss(error: BaseException) -> None:
    assert not is_loss(error)
    assert verdict({0: error}) is error


def test_what_says_nothing_about_the_run_is_a_loss() -> None:
    from ray.exceptions import ActorDiedError
    from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

    died = WorkerHealthCheckFailedError("a worker failed its health check", ActorDiedError())
    reset = ConnectionResetError(104, "Connection reset by peer")
    for error in (PEER, died, reset, torch.distributed.DistNetworkError("x"), ServiceError("store does not answer")):
        assert is_loss(error), error
    assert verdict({0: PEER, 1: died}) is None


def test_losses_without_progress_end_the_run_and_those_with_progress_do_not(tmp_path: Path) -> None:
    losses = Losses(tmp_path / "losses.jsonl", most_without_progress=2)
    for step in (None, None, 10, 10, 20, 30, 40, 40):
        losses.record({1: PEER}, step, 4)
    with pytest.raises(ServiceError, match="3 times in a row at step 40"):
        losses.record({1: PEER}, 40, 4)
    lines = [json.loads(line) for line in (tmp_path / "losses.jsonl").read_text().splitlines()]
    assert [line["goes_on_from"] for line in lines] == [0, 0, 10, 10, 20, 30, 40, 40, 40]
    assert "Connection closed by peer" in lines[0]["ranks"]["1"]


def test_a_strategy_is_chosen_by_what_fits() -> None:
    from dataclasses import replace

    muon, adamw = tiny(), replace(tiny(), optimiser="adamw")
    large, gpu = 840_000_000, 80 << 30
    assert choose_strategy(adamw, "auto", 8, gpu // 4, large) == "fsdp2"
    assert choose_strategy(adamw, "auto", 1, gpu // 4, large) == "ddp"
    assert choose_strategy(adamw, "auto", 8, gpu, large) == "ddp"
    assert choose_strategy(muon, "auto", 8, gpu // 4, large) == "ddp"
    assert choose_strategy(adamw, "auto", 8, 0, large) == "ddp"
    assert choose_strategy(adamw, "fsdp2", 1, 0, 0) == "fsdp2"
    with pytest.raises(UsageError, match=r"train\.strategy: fsdp2 expects a recipe with optimiser adamw, found muon"):
        choose_strategy(muon, "fsdp2", 2, 0, 0)
    with pytest.raises(UsageError, match=r"train\.strategy: expected one of auto, ddp, fsdp2, found 'zero'"):
        choose_strategy(adamw, "zero", 2, 0, 0)
