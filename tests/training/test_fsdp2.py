"""FSDP2 computes what DDP computes, and each goes on from the other's checkpoint: two real ranks over gloo, on CPUs.

With a large eps, so that 1e-5 is no matter of luck: AdamW's own turns a gradient that is zero but for rounding (the
bias of every key projection) into a step of the size of the learning rate. Gradients count by their size then, too,
so that another clipping would be seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.faults.train_rank import spec_of
from tests.faults.train_runs import DATASETS, Ranks, attempts, final, largest_difference, write_data
from training.fit import start_model

pytestmark = pytest.mark.slow
STEPS = 4


class Runs:
    def __init__(self, folder: Path) -> None:
        self.ranks, self.folder = Ranks(), folder
        (folder / "data").mkdir()
        self.data = write_data(folder / "data")

    def plan(self, name: str, strategy: str, **more: Any) -> dict[str, Any]:
        run_dir = self.folder / name
        return {
            "steps": STEPS,
            "checkpoint_every": 2,
            "optimiser": "adamw",
            "eps": 1e-4,
            "strategy": strategy,
            "data": str(self.data),
            "run_dir": str(run_dir),
            "checkpoints": str(run_dir / "checkpoints"),
            "recipe": {"clip_norm": 0.05},  # far below the norms met: every step is clipped
            **more,
        }


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    found = Runs(tmp_path_factory.mktemp("fsdp2"))
    try:
        for strategy in ("ddp", "fsdp2"):
            found.ranks.complete(found.plan(strategy, strategy), 2)
        yield found
    finally:
        found.ranks.close()


def _history(run_dir: Path) -> list[dict[str, float]]:
    history: list[dict[str, float]] = torch.load(run_dir / "final.pt", weights_only=True)["history"]
    return history


@pytest.mark.parametrize("what", ["weights", "average"])
def test_weights_and_average_are_those_of_ddp(runs: Runs, what: str) -> None:
    ddp, fsdp2 = final(runs.folder / "ddp", what), final(runs.folder / "fsdp2", what)
    assert largest_difference(ddp, fsdp2) < 1e-5
    # on a way that is a thousand times as long
    start, _ = start_model(spec_of({**runs.plan("ddp", "ddp"), "datasets": DATASETS}).recipe, "")
    assert largest_difference(start.state_dict(), ddp) > 1e-3
    assert attempts(runs.folder / "fsdp2") == attempts(runs.folder / "ddp")


def test_losses_are_those_of_ddp(runs: Runs) -> None:
    (ddp,), (fsdp2,) = _history(runs.folder / "ddp"), _history(runs.folder / "fsdp2")
    assert fsdp2 == pytest.approx(ddp, abs=1e-5)


@pytest.mark.parametrize(("first", "second"), [("fsdp2", "ddp"), ("ddp", "fsdp2")])
def test_one_goes_on_from_the_checkpoint_of_the_other(runs: Runs, first: str, second: str) -> None:
    name = f"{first}-to-{second}"
    kill = {"rank": 1, "step": 3, "before_saving": True}
    codes = runs.ranks.run({**runs.plan(name, first), "kill": kill}, 2)
    assert codes[1] == -9
    runs.ranks.complete(runs.plan(name, second), 2)
    assert min(attempts(runs.folder / name)[1]) == 3
    for what in ("weights", "average"):
        assert largest_difference(final(runs.folder / "ddp", what), final(runs.folder / name, what)) < 1e-5


def test_the_files_of_both_are_alike(runs: Runs) -> None:
    states = [
        torch.load(runs.folder / name / "checkpoints" / f"step-{STEPS:08d}.ckpt", weights_only=True)
        for name in ("ddp", "fsdp2")
    ]
    ddp, fsdp2 = ({name: tuple(value.shape) for name, value in state["state_dict"].items()} for state in states)
    assert ddp == fsdp2
    moments = [state["optimizer_states"][0]["state"] for state in states]
    assert moments[0].keys() == moments[1].keys()
    for number, entry in moments[0].items():
        for name, value in entry.items():
            assert torch.allclose(value, moments[1][number][name], atol=1e-8), (number, name)


def test_adapters_are_divided_and_merged_as_ddp_does(runs: Runs) -> None:
    plans = {name: runs.plan(f"lora-{name}", name, lora={"rank": 2}) for name in ("ddp", "fsdp2")}
    runs.ranks.complete(plans["ddp"], 2)
    kill = {"rank": 1, "step": 3, "before_saving": True}
    assert runs.ranks.run({**plans["ddp"], **_elsewhere(plans["fsdp2"]), "kill": kill}, 2)[1] == -9
    runs.ranks.complete(plans["fsdp2"], 2)
    ddp, fsdp2 = (final(runs.folder / f"lora-{name}", "average") for name in ("ddp", "fsdp2"))
    assert largest_difference(ddp, fsdp2) < 1e-5
    # the merged weights are those of a plain model, and of the start where nothing was adapted
    start, _ = start_model(spec_of({**plans["ddp"], "datasets": DATASETS}).recipe, "")
    begun = start.state_dict()
    assert begun.keys() == ddp.keys()
    patches = "vision_encoder.backbone.embeddings.patch_embeddings.projection.weight"
    assert torch.equal(begun[patches], ddp[patches])
    assert largest_difference(begun, ddp) > 1e-4


def _elsewhere(plan: dict[str, Any]) -> dict[str, Any]:
    return {name: plan[name] for name in ("run_dir", "checkpoints")}
