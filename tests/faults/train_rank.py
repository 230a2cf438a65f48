"""One rank of a training run without Ray, as a process of its own: what the kill matrix starts and kills.

`python -m tests.faults.train_rank PLAN.json` with torchrun's variables (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT).
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.plugins.environments import TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy

from training.checkpoints import CheckpointStore, CheckpointWriter
from training.distributed import Fsdp2Strategy, SampleLog, ShardedTraining, make_trainer, resume_point
from training.fit import fit
from training.module import Sam3Training
from training.recipes import tiny
from training.spec import FitSpec, LoaderSettings, RunSettings


class Die(lightning.Callback):
    """SIGKILL of this process when `step` steps are done, before or after their checkpoint."""

    def __init__(self, step: int, writer: CheckpointWriter, wait: bool) -> None:
        self._step, self._writer, self._wait = step, writer, wait

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        if trainer.global_step == self._step:
            if self._wait:
                self._writer.wait()
            os.kill(os.getpid(), signal.SIGKILL)


def spec_of(plan: dict[str, Any]) -> FitSpec:
    recipe = replace(
        tiny(),
        steps=plan["steps"],
        global_batch=4,
        checkpoint_every=plan["checkpoint_every"],
        optimiser=plan.get("optimiser", "muon"),
        most_visits=0,
        **plan.get("recipe", {}),
    )
    if plan.get("dropout"):
        for part in ("detr_encoder_config", "detr_decoder_config", "geometry_encoder_config"):
            recipe.sam3[part]["dropout"] = plan["dropout"]
    return FitSpec(
        recipe,
        plan["data"],
        plan["datasets"],
        plan["run_dir"],
        loader=LoaderSettings(workers=plan.get("loader_workers", 0)),
        run=RunSettings(
            strategy=plan.get("strategy", "ddp"),
            checkpoints=plan["checkpoints"],
            checkpoint_minutes=plan.get("checkpoint_minutes", 0),
            sample_log=True,
        ),
    )


def main(plan: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    spec = spec_of(plan)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=world_size)
    sharded = spec.run.strategy == "fsdp2"
    strategy = Fsdp2Strategy() if sharded else DDPStrategy(find_unused_parameters=True, gradient_as_bucket_view=True)
    writer = CheckpointWriter(CheckpointStore(spec.run.checkpoints))
    kill = plan.get("kill") or {}

    def trainer_of(callbacks: list[lightning.Callback]) -> lightning.Trainer:
        more: list[lightning.Callback] = [SampleLog(Path(spec.run_dir) / "samples", rank, world_size)]
        doomed = kill.get("rank") == rank
        if doomed and kill["before_saving"]:
            more.append(Die(kill["step"], writer, wait=False))
        trainer = make_trainer(
            spec,
            strategy,
            writer,
            [*callbacks, *more],
            plugins=[TorchElasticEnvironment()],
            devices=world_size,
            accelerator="cpu",
            precision=plan.get("precision"),
        )
        if doomed and not kill["before_saving"]:
            # after the callback that saves: the file may be whole, or half of it
            trainer.callbacks.append(Die(kill["step"], writer, wait=kill.get("wait", False)))
        return trainer

    with resume_point(writer.store, torch.device("cpu")) as resume:
        result = fit(
            spec,
            rank=rank,
            world_size=world_size,
            barrier=torch.distributed.barrier,
            make_trainer=trainer_of,
            resume=resume,
            module_class=ShardedTraining if sharded else Sam3Training,
        )
    weights = result.module.averaged_state()
    if rank == 0:
        torch.save({"weights": weights, "history": result.history}, Path(spec.run_dir) / "final.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
