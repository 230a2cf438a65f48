"""Row 1 of the faults: a rank of a training run is killed, and the run goes on with another world.

Real processes and gloo, without Ray: SIGKILL at the steps around a checkpoint. All 40 in `make soak`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.faults.train_runs import Ranks, attempts, final, lineage, write_data

pytestmark = pytest.mark.slow
SOAK = os.environ.get("SEGFOUNDRY_SOAK") == "1"
STEPS, EVERY = 7, 3
# step of the kill, and whether it comes before the checkpoint of that step is begun
POINTS = {"first": (1, True), "before": (2, True), "at": (3, False), "after": (4, True), "last": (STEPS, True)}
WORLDS = [(1, 1), (2, 2), (4, 2), (2, 4)]
MATRIX = [(point, worlds, loaders) for point in POINTS for worlds in WORLDS for loaders in (0, 2)]
SAMPLE = [("after", (1, 1), 0), ("at", (2, 2), 2), ("last", (4, 2), 0), ("before", (2, 4), 0)]


@dataclass
class Reference:
    ranks: Ranks
    data: Path
    run_dir: Path
    samples: dict[int, list[str]]


def _plan(data: Path, run_dir: Path, **more: Any) -> dict[str, Any]:
    return {
        "steps": STEPS,
        "checkpoint_every": EVERY,
        "dropout": 0.1,  # so that random numbers of the training itself must come back too
        "data": str(data),
        "run_dir": str(run_dir),
        "checkpoints": str(run_dir / "checkpoints"),
        **more,
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reference]:
    folder = tmp_path_factory.mktemp("killed")
    (folder / "data").mkdir()
    data = write_data(folder / "data")
    ranks = Ranks()
    try:
        ranks.complete(_plan(data, folder / "undisturbed"), 1)
        (samples,) = attempts(folder / "undisturbed")
        assert list(samples) == list(range(1, STEPS + 1))
        yield Reference(ranks, data, folder / "undisturbed", samples)
    finally:
        ranks.close()


@pytest.mark.parametrize(("point", "worlds", "loaders"), MATRIX if SOAK else SAMPLE)
def test_no_sample_is_lost_or_seen_twice(
    undisturbed: Reference, tmp_path: Path, point: str, worlds: tuple[int, int], loaders: int
) -> None:
    step, before_saving = POINTS[point]
    # around a checkpoint it is rank 0 that dies, which writes it; else the last one
    rank = 0 if point in ("before", "at", "after") else worlds[0] - 1
    plan = _plan(undisturbed.data, tmp_path, loader_workers=loaders)
    kill = {"rank": rank, "step": step, "before_saving": before_saving}
    codes = undisturbed.ranks.run({**plan, "kill": kill}, worlds[0])
    assert codes[rank] == -9
    undisturbed.ranks.complete(plan, worlds[1])

    first, second = attempts(tmp_path)
    # at the checkpoint's own step the file may have become whole in time, or not: then the run begins anew
    expected = {"first": [1], "before": [1], "at": [1, EVERY + 1], "after": [1, EVERY + 1], "last": [2 * EVERY + 1]}
    # a last rank that dies when all steps are done may leave the others time to save the end
    done = point == "last" and set(first) == set(undisturbed.samples) and not second
    assert done or min(second) in expected[point]
    assert max(first, default=0) <= step
    assert lineage([first, second]) == undisturbed.samples
    if worlds == (1, 1):
        # one rank computes in one order: the same bits, average, moments and random numbers included
        for what in ("weights", "average"):
            was, now = final(undisturbed.run_dir, what), final(tmp_path, what)
            assert all(torch.equal(was[name], now[name]) for name in was)


def test_a_checkpoint_by_the_clock(undisturbed: Reference, tmp_path: Path) -> None:
    """Where steps are slow, minutes decide; here every step is late, and none is the `checkpoint_every`-th."""
    plan = _plan(undisturbed.data, tmp_path, checkpoint_every=100)
    kill = {"rank": 1, "step": 5, "before_saving": True}
    codes = undisturbed.ranks.run({**plan, "kill": kill, "checkpoint_minutes": 1e-5}, 2)
    assert codes[1] == -9
    undisturbed.ranks.complete(plan, 2)
    first, second = attempts(tmp_path)
    assert 1 < min(second) <= 5
    assert lineage([first, second]) == undisturbed.samples
