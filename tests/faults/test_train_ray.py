"""Failures of training workers under a real Ray session: what stops a run, and what it survives."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from infra.compute import ray_session
from infra.errors import DataError, UsageError
from infra.settings import Settings
from tests.faults.train_runs import DATASETS, attempts, lineage
from tests.training.made import write_dataset
from training import launch
from training.fit import open_stream, prepare
from training.recipes import resolve
from training.spec import FitSpec

pytestmark = pytest.mark.slow
STEPS = 12
PARAMS: dict[str, Any] = {"recipe": "tiny", "steps": STEPS, "workers": 2, "sample_log": True}


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with ray_session(tmp_path_factory.mktemp("state"), Settings(num_cpus=2)):
        yield


@pytest.fixture
def data(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    write_dataset(root, "Alpha", 12, splits=("train", "train", "val"))
    write_dataset(root, "Beta", 18, first=50, splits=("train", "train", "val"))
    return root


def _expected(data: Path, run_dir: Path) -> dict[int, list[str]]:
    """The samples of each step as one process alone reads them, without a trainer."""
    spec = FitSpec(resolve(PARAMS), str(data), DATASETS, str(run_dir))
    prepare(spec, "train", 0, 1)
    return {step: batch.sample_ids for step, batch in enumerate(islice(open_stream(spec, "train", 0, 1), STEPS), 1)}


class Killer(threading.Thread):
    """SIGKILL of the worker that is rank `rank`, when it has finished `steps` steps."""

    def __init__(self, run_dir: Path, rank: int, steps: int) -> None:
        super().__init__(daemon=True)
        self._samples, self._rank, self._steps = run_dir / "samples", rank, steps
        self.killed = 0

    def run(self) -> None:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and not self.killed:
            for file in self._samples.glob(f"*-rank{self._rank}-of-*.jsonl"):
                if len(file.read_text().splitlines()) >= self._steps:
                    self.killed = int(file.name.split("-")[1])
                    os.kill(self.killed, signal.SIGKILL)
            time.sleep(0.02)


def test_a_damaged_shard_stops_the_run_at_once_with_its_own_words(
    session: None, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = data / "Beta" / "shard-00000.parquet"
    payload = bytearray(file.read_bytes())
    payload[len(payload) // 2] ^= 1
    file.write_bytes(bytes(payload))
    begun: list[Path] = []
    attempt = launch._attempt

    def counted(spec: Any, final: Path, folder: Path, *rest: Any) -> Any:
        begun.append(folder)
        return attempt(spec, final, folder, *rest)

    monkeypatch.setattr(launch, "_attempt", counted)
    run_dir = tmp_path / "run"
    with pytest.raises(DataError, match=r"Beta: shard-00000\.parquet: expected SHA-256"):
        launch.run_training(data_root=data, datasets=DATASETS, out=tmp_path / "out", params=PARAMS, run_dir=run_dir)
    assert len(begun) == 1
    assert not (run_dir / launch.LOSSES_FILE).exists()
    assert not (tmp_path / "out").exists()


def test_a_killed_worker_costs_no_sample(session: None, data: Path, tmp_path: Path) -> None:
    run_dir, out = tmp_path / "run", tmp_path / "out"
    killer = Killer(run_dir, rank=1, steps=5)
    killer.start()
    params = {**PARAMS, "checkpoint_minutes": 1e-4}  # a checkpoint as often as one can be written
    record = launch.run_training(data_root=data, datasets=DATASETS, out=out, params=params, run_dir=run_dir)
    killer.join(1)
    assert killer.killed
    first, second = attempts(run_dir)
    assert max(first) < STEPS
    assert min(second) > 1  # from a checkpoint, and not anew
    assert lineage([first, second]) == _expected(data, run_dir)
    (loss,) = [json.loads(line) for line in (run_dir / launch.LOSSES_FILE).read_text().splitlines()]
    assert loss["goes_on_from"] == min(second) - 1
    history = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    assert [line["step"] for line in history] == sorted({10, STEPS})
    assert record["steps"] == STEPS
    # nothing of the run's checkpoints stays when it is over
    assert not any((run_dir / "checkpoints").glob("*"))


def test_what_cannot_be_is_refused_before_anything_is_started(data: Path, tmp_path: Path) -> None:
    params = {**PARAMS, "strategy": "fsdp2"}
    with pytest.raises(UsageError, match="optimiser adamw, found muon"):
        launch.run_training(
            data_root=data, datasets=DATASETS, out=tmp_path / "out", params=params, run_dir=tmp_path / "run"
        )
