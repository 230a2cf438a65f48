"""Ranks of training runs without Ray, as real processes: what the kill matrix starts and kills.

`python -m tests.faults.train_rank` imports torch once, and then forks the ranks of each plan that it reads from stdin
(a line of JSON); it answers with their exit codes.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.plugins.environments import TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy

from training.checkpoints import CheckpointStore, CheckpointWriter
from training.distributed import DDP_OPTIONS, SampleLog, make_trainer, resume_point
from training.fit import fit
from training.fsdp2 import Fsdp2Strategy, ShardedTraining, full_tensor
from training.lora_settings import Lora
from training.module import Sam3Training
from training.recipes import tiny
from training.spec import FitSpec, LoaderSettings, RunSettings


class Die(lightning.Callback):
    """SIGKILL of this process when `step` steps are done: before their checkpoint, or while it is being written."""

    def __init__(self, step: int, before_saving: bool) -> None:
        self._step, self._before_saving = step, before_saving

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        self._die(trainer, self._before_saving)

    def on_train_batch_start(self, trainer: Any, *args: Any) -> None:
        self._die(trainer, not self._before_saving)  # after the callback that saves here

    def _die(self, trainer: Any, now: bool) -> None:
        if now and trainer.global_step == self._step:
            os.kill(os.getpid(), signal.SIGKILL)


class Eps(lightning.Callback):
    """AdamW's eps, so that a gradient of nothing but rounding moves a weight by nothing."""

    def __init__(self, eps: float) -> None:
        self._eps = eps

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        for group in trainer.optimizers[0].param_groups:
            group["eps"] = self._eps


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
    if "lora" in plan:
        recipe = replace(recipe, lora=Lora(**plan["lora"]))
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


def train(plan: dict[str, Any], rank: int, world_size: int) -> None:
    torch.set_num_threads(1)
    spec = spec_of(plan)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{plan['meeting']}", rank=rank, world_size=world_size
    )
    sharded = spec.run.strategy == "fsdp2"
    strategy = Fsdp2Strategy() if sharded else DDPStrategy(**DDP_OPTIONS)
    writer = CheckpointWriter(CheckpointStore(spec.run.checkpoints))
    kill = plan.get("kill") or {}

    def trainer_of(callbacks: list[lightning.Callback]) -> lightning.Trainer:
        more: list[lightning.Callback] = [SampleLog(Path(spec.run_dir) / "samples", rank, world_size)]
        if "eps" in plan:
            more.append(Eps(plan["eps"]))
        trainer = make_trainer(
            spec,
            strategy,
            writer,
            [*callbacks, *more],
            plugins=[TorchElasticEnvironment()],
            devices=world_size,
            accelerator="cpu",
        )
        if kill.get("rank") == rank:
            trainer.callbacks.append(Die(kill["step"], kill["before_saving"]))
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
    plain = {name: full_tensor(value) for name, value in result.module.model.state_dict().items()}
    if rank == 0:
        kept = {"weights": plain, "average": weights, "history": result.history}
        torch.save(kept, Path(spec.run_dir) / "final.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def _child(plan: dict[str, Any], rank: int, world_size: int) -> None:
    log = os.open(f"{plan['meeting']}-rank{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(
        {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "GROUP_RANK": "0",
            "WORLD_SIZE": str(world_size),
            "LOCAL_WORLD_SIZE": str(world_size),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": "29500",  # of the environment's form; the ranks meet in a file
        }
    )
    code = 1
    try:
        train(plan, rank, world_size)
        code = 0
    except BaseException:  # noqa: BLE001  told in the log, and by the exit code
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run_ranks(plan: dict[str, Any], world_size: int) -> list[int]:
    """Fork the ranks; when one is lost the others are stopped, as a launcher does. Their exit codes."""
    children = []
    for rank in range(world_size):
        child = os.fork()
        if child == 0:
            _child(plan, rank, world_size)
        children.append(child)
    codes: dict[int, int] = {}
    deadline = time.monotonic() + plan.get("timeout_s", 400)
    while len(codes) < world_size:
        for child in children:
            if child not in codes:
                done, status = os.waitpid(child, os.WNOHANG)
                if done:
                    codes[child] = os.waitstatus_to_exitcode(status)
        if any(codes.values()) or time.monotonic() > deadline:
            for child in set(children) - codes.keys():
                os.kill(child, signal.SIGKILL)
                codes[child] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        time.sleep(0.02)
    return [codes[child] for child in children]


if __name__ == "__main__":
    for line in sys.stdin:
        order = json.loads(line)
        print(json.dumps(run_ranks(order["plan"], order["world_size"])), flush=True)  # noqa: T201
