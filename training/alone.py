"""Training without Ray, on a machine that has the core's packages alone: one process, or those that torchrun starts.

    python -m training.alone --data DIR --datasets A,B --run-dir DIR --out DIR --recipe full --start WEIGHTS
    torchrun --nproc-per-node 8 -m training.alone …

Shards and their `dataset.json` are all it reads; it leaves the candidate folder that `launch.py` leaves. Started again
with the same inputs it goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.plugins.environments import TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy

from infra.errors import SegfoundryError, UsageError
from infra.storage import digest_of
from preprocessing import schema
from training import recipes
from training.candidate import publish, write_final
from training.checkpoints import CheckpointStore, CheckpointWriter
from training.distributed import DDP_OPTIONS, make_trainer, resume_point, strategy_of
from training.fit import fit
from training.fsdp2 import Fsdp2Strategy, ShardedTraining
from training.module import Sam3Training
from training.spec import FitSpec, RunSettings, start_config, start_identity


def run_alone(spec: FitSpec, out: Path) -> dict[str, Any] | None:
    """Train, and write the candidate folder `out`; its `train.json` on rank 0, None on the others.

    `spec.run.checkpoints` is made this run's own: a folder below it, named by everything that decides the result.
    """
    rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cuda else torch.device("cpu")
    many = "RANK" in os.environ
    if many:
        torch.distributed.init_process_group("nccl" if cuda else "gloo")
    try:
        return _run(spec, out, rank, world_size, device)
    finally:
        if many:
            torch.distributed.destroy_process_group()


def _run(spec: FitSpec, out: Path, rank: int, world_size: int, device: torch.device) -> dict[str, Any] | None:
    digests = {name: schema.read_dataset_file(Path(spec.data_root) / name)["manifest_digest"] for name in spec.datasets}
    start, start_sha256 = start_identity(spec.start) if spec.start else ("", "")
    recipe = replace(spec.recipe, **start_config(start)) if start else spec.recipe
    key = {"recipe": asdict(recipe), "code": recipes.code_sha256(), "digests": digests, "start": start_sha256}
    final = Path(spec.run_dir) / "final" / digest_of(key)[:16]
    folder = spec.run.checkpoints or str(Path(spec.run_dir) / "checkpoints")
    spec = replace(spec, recipe=recipe, start=start, run=replace(spec.run, checkpoints=f"{folder}/{final.name}"))
    final.parent.mkdir(parents=True, exist_ok=True)
    writer = CheckpointWriter(CheckpointStore(spec.run.checkpoints))
    sharded = strategy_of(spec, world_size, device) == "fsdp2"

    def trainer_of(callbacks: list[lightning.Callback]) -> lightning.Trainer:
        strategy: Any = "auto"
        if world_size > 1:
            strategy = Fsdp2Strategy(device) if sharded else DDPStrategy(**DDP_OPTIONS)
        plugins = [TorchElasticEnvironment()] if "RANK" in os.environ else []
        local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        return make_trainer(spec, strategy, writer, callbacks, plugins=plugins, devices=local)

    if not (final / "done.json").is_file():
        with resume_point(writer.store, device) as resume:
            result = fit(
                spec,
                rank=rank,
                world_size=world_size,
                barrier=torch.distributed.barrier if torch.distributed.is_initialized() else lambda: None,
                make_trainer=trainer_of,
                resume=resume,
                module_class=ShardedTraining if sharded else Sam3Training,
            )
        weights = result.module.averaged_state()  # all ranks: it may be divided among them
        if rank == 0:
            write_final(spec, final, result, weights)
    if rank != 0:
        return None
    record = publish(spec, final, out, digests, world_size, map)
    writer.store.remove()
    return record


def parsed(arguments: Sequence[str] | None) -> tuple[FitSpec, Path]:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m training.alone", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of dataset versions")
    parser.add_argument("--datasets", default="", help="comma-separated names below --data; without it all of them")
    parser.add_argument("--run-dir", type=Path, required=True, help="state of the run, on storage that all ranks share")
    parser.add_argument("--out", type=Path, required=True, help="the candidate folder")
    parser.add_argument("--start", default="", help="SAM3 weights, as train.start of params.yaml")
    parser.add_argument(
        "--tokenizer", default="", help="model folder or file with CLIP's merges; see FitSpec.tokenizer"
    )
    parser.add_argument("--checkpoints", default="", help="folder or fsspec URL; without it below --run-dir")
    parser.add_argument("--checkpoint-minutes", type=float, default=0)
    parser.add_argument("--params", default="{}", help="JSON: keys of the train section of params.yaml, e.g. recipe")
    given = parser.parse_args(arguments)
    try:
        params = dict(json.loads(given.params))
    except ValueError as error:
        msg = f"--params: expected a JSON object, found {given.params!r} ({error})"
        raise UsageError(msg) from error
    names = [name for name in given.datasets.split(",") if name]
    names = names or sorted(file.parent.name for file in given.data.glob(f"*/{schema.DATASET_FILE}"))
    if not names:
        msg = f"--data {given.data}: expected dataset versions, found no {schema.DATASET_FILE} one folder below it"
        raise UsageError(msg)
    kept = [name for name in names if schema.read_dataset_file(given.data / name).get("evaluation_only")]
    if kept:
        msg = f"--datasets: expected datasets to train on, found external test sets: {', '.join(kept)}. Leave them out"
        raise UsageError(msg)
    run = RunSettings(
        strategy=str(params.get("strategy", "auto")),
        checkpoints=given.checkpoints,
        checkpoint_minutes=given.checkpoint_minutes,
    )
    root, run_dir = str(given.data.resolve()), str(given.run_dir.resolve())
    return FitSpec(
        recipes.resolve(params), root, names, run_dir, given.start, run=run, tokenizer=given.tokenizer
    ), given.out


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; the exit code of a `SegfoundryError` where one was raised."""
    try:
        spec, out = parsed(arguments)
        Path(spec.run_dir).mkdir(parents=True, exist_ok=True)
        record = run_alone(spec, out)
    except SegfoundryError as error:
        sys.stderr.write(f"training: {error}\n")
        return error.exit_code
    if record is not None:
        sys.stdout.write(json.dumps({key: record[key] for key in ("steps", "workers", "weights_sha256")}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
