"""A run over several processes, with or without Ray: when to save, where to go on from, and the Trainer for it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

import lightning
import torch
from lightning.fabric.plugins import CheckpointIO
from transformers.models.sam3.configuration_sam3 import Sam3Config

from training.checkpoints import CheckpointStore, CheckpointWriter, State, load_state, stem_of
from training.lora import add_adapters, trained_numbers
from training.recipes import Recipe
from training.sam3.model import PromptableSam3
from training.spec import FitSpec, choose_strategy

DDP_OPTIONS = {"find_unused_parameters": True, "gradient_as_bucket_view": True}


def strategy_of(spec: FitSpec, world_size: int, device: torch.device) -> str:
    """`ddp` or `fsdp2` for a run; see `choose_strategy`."""
    device_bytes = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else 0
    parameters = 0
    if spec.run.strategy == "auto" and device_bytes:
        with torch.device("meta"):
            model = PromptableSam3(Sam3Config(**spec.recipe.sam3))
        parameters = sum(parameter.numel() for parameter in model.parameters())
        if spec.recipe.lora is not None:
            # of what is frozen the weights alone are kept, a fifth of a trained parameter's state
            with torch.device("meta"):
                add_adapters(model, spec.recipe.lora, spec.recipe.seed)
            trained = trained_numbers(model)
            parameters = trained + (parameters - trained) // 5
    return choose_strategy(spec.recipe, spec.run.strategy, world_size, device_bytes, parameters)


class StoreIO(CheckpointIO):
    """Lightning's way to write and read checkpoints, through a store and in a thread."""

    def __init__(self, writer: CheckpointWriter) -> None:
        super().__init__()
        self._writer = writer

    def save_checkpoint(self, checkpoint: State, path: Any, storage_options: Any = None) -> None:
        """Begin to write the checkpoint of its step; `path` is only a name."""
        self._writer.save(int(checkpoint["global_step"]), checkpoint)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> State:
        """Tensors and plain values of a local file, whatever `weights_only` says."""
        return load_state(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        """The store removes what is old."""

    def teardown(self) -> None:
        """Finish what is being written."""
        self._writer.wait()


class KeepCheckpoints(lightning.Callback):
    """Saves every `steps` optimiser steps, `minutes` after the one before, and at the last step.

    Between two steps, when the next one begins: at the end of a batch Lightning asks callbacks before the module, whose
    average has not moved by then.
    """

    def __init__(self, writer: CheckpointWriter, steps: int, minutes: float) -> None:
        self._writer, self._steps, self._minutes = writer, steps, minutes
        self._saved_at = time.monotonic()
        self._saved_step = 0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """What a run goes on from need not be saved again."""
        self._saved_step, self._saved_at = trainer.global_step, time.monotonic()

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Save where it is time; all ranks come to the same verdict."""
        step = trainer.global_step
        if step != self._saved_step and (step % self._steps == 0 or self._overdue(trainer)):
            self._save(trainer)

    def _save(self, trainer: Any) -> None:
        self._saved_step, self._saved_at = trainer.global_step, time.monotonic()
        trainer.save_checkpoint(stem_of(self._saved_step))

    def _overdue(self, trainer: Any) -> bool:
        if self._minutes <= 0:
            return False
        due = torch.tensor(time.monotonic() - self._saved_at >= 60 * self._minutes, device=trainer.strategy.root_device)
        if _distributed():
            vote = due.to(torch.int32)
            torch.distributed.broadcast(vote, 0)  # clocks differ: rank 0's decides
            due = vote > 0
        return bool(due)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """A run is not over before its last checkpoint is written."""
        if trainer.global_step != self._saved_step:
            self._save(trainer)
        self._writer.wait()


class SampleLog(lightning.Callback):
    """One line a step and rank: which samples the step saw. A file per process, none is written twice."""

    def __init__(self, folder: Path, rank: int, world_size: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{time.time_ns():020d}-{os.getpid()}-rank{rank}-of-{world_size}.jsonl"
        self._rank = rank
        self._file = (folder / name).open("w", encoding="utf-8", buffering=1)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """`step` counts from 1, as `global_step` does after it."""
        line = {"step": trainer.global_step, "rank": self._rank, "sample_ids": batch.sample_ids}
        self._file.write(json.dumps(line) + "\n")

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Close the file."""
        self._file.close()


@contextmanager
def resume_point(store: CheckpointStore, device: torch.device) -> Iterator[Path | None]:
    """A local file of the checkpoint to go on from, the same one on all ranks, who must all ask; None to begin.

    Rank 0 chooses, so that no rank goes on from another step than the others.
    """
    if not _distributed():
        store.clean()
        with store.opened() as found:
            yield found[1] if found else None
        return
    with ExitStack() as stack:
        found = None
        if torch.distributed.get_rank() == 0:
            store.clean()
            found = stack.enter_context(store.opened())
        told = torch.tensor(found[0] if found else -1, dtype=torch.int64, device=device)
        torch.distributed.broadcast(told, 0)
        if found is None and int(told) >= 0:
            found = stack.enter_context(store.opened(int(told)))
        yield found[1] if found else None


def precision_of(recipe: Recipe, *, on_gpu: bool) -> Literal["bf16-mixed", "32-true"]:
    """Lightning's name of the recipe's precision. Weights, their average and the losses are fp32 in each."""
    bf16 = on_gpu if recipe.precision == "auto" else recipe.precision == "bf16"
    return "bf16-mixed" if bf16 else "32-true"


def make_trainer(
    spec: FitSpec,
    strategy: Any,
    writer: CheckpointWriter,
    callbacks: Sequence[lightning.Callback],
    *,
    plugins: Sequence[Any] = (),
    devices: int | str = "auto",
    accelerator: str = "auto",
) -> lightning.Trainer:
    """A Trainer that runs to the recipe's last step and keeps checkpoints."""
    recipe = spec.recipe
    keep = KeepCheckpoints(writer, recipe.checkpoint_every, spec.run.checkpoint_minutes)
    return lightning.Trainer(
        max_steps=recipe.steps,
        max_epochs=-1,
        accelerator=accelerator,
        devices=devices,
        strategy=strategy,
        plugins=[*plugins, StoreIO(writer)],
        callbacks=[*callbacks, keep],
        gradient_clip_val=recipe.clip_norm,
        precision=precision_of(recipe, on_gpu=torch.cuda.is_available() and accelerator != "cpu"),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()
