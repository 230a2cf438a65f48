"""One rank's training run under a Lightning Trainer: with Ray around it or without.

`launch.py` adds Ray Train; a bare GPU machine calls `fit` with a plain Trainer.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from torch.utils.data import DataLoader
from transformers.models.sam3.configuration_sam3 import Sam3Config

from training.module import Sam3Training
from training.prepared import PreparedSamples, prepare_shard, shards_of
from training.prompting import Vocabulary
from training.recipes import Recipe
from training.sam3.checkpoint import load_weights
from training.sam3.init import initialise
from training.sam3.model import PromptableSam3
from training.sam3.tokenizer import PromptTokenizer
from training.spec import PROGRESS_FILE, WEIGHTS, FitSpec
from training.stream import Batch, BatchStream

HISTORY_EVERY = 10  # steps between lines of history.jsonl
_PROGRESS_SECONDS = 0.5


def start_model(recipe: Recipe, start: str) -> PromptableSam3:
    """The start checkpoint: a folder's weights, or `initialise` with the recipe's seed (the same on every rank)."""
    model = PromptableSam3(Sam3Config(**recipe.sam3))
    if start:
        load_weights(model, Path(start) / WEIGHTS)
    else:
        initialise(model, recipe.seed)
    return model


def prepare(spec: FitSpec, split: str, rank: int, world_size: int) -> None:
    """Prepare this rank's share of the shards; all ranks together prepare all."""
    shards = [shard for dataset in spec.datasets for shard in shards_of(Path(spec.data_root), dataset)]
    for number, shard in enumerate(shards):
        if number % world_size == rank:
            _prepared_folder(spec, shard, split)


def open_samples(spec: FitSpec, split: str) -> PreparedSamples:
    """All prepared samples of a split, in an order that every rank shares."""
    root = Path(spec.data_root)
    return PreparedSamples(
        {
            dataset: [_prepared_folder(spec, shard, split) for shard in shards_of(root, dataset)]
            for dataset in spec.datasets
        }
    )


def _prepared_folder(spec: FitSpec, shard: Any, split: str) -> Path:
    recipe = spec.recipe
    return prepare_shard(
        shard,
        split,
        Path(spec.run_dir) / "prepared",
        image_size=recipe.image_size,
        mask_size=recipe.mask_size,
        max_instances=recipe.max_instances,
    )


def wording_of(data_root: Path, datasets: Iterable[str]) -> Vocabulary:
    """Prompts and kin of every concept of the datasets."""
    return Vocabulary.of(data_root, datasets)


class Chronicle(lightning.Callback):
    """Loss history that survives a restart, and a progress file for whoever watches."""

    def __init__(self, run_dir: Path, recipe: Recipe) -> None:
        self._file, self._recipe = run_dir / PROGRESS_FILE, recipe
        self.history: list[dict[str, float]] = []
        self._written = 0.0
        self._began: tuple[float, int] | None = None

    def state_dict(self) -> dict[str, Any]:
        """History so far, for the checkpoint."""
        return {"history": self.history}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """History up to the checkpoint that is resumed."""
        self.history = list(state_dict["history"])

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Note the step."""
        assert isinstance(pl_module, Sam3Training)
        step, now = trainer.global_step, time.monotonic()
        if self._began is None:
            self._began = (now, step)
        if step % HISTORY_EVERY == 0 or step == self._recipe.steps:
            line = {"step": step, "samples": step * self._recipe.global_batch, **pl_module.terms}
            line["learning_rate"] = float(trainer.optimizers[0].param_groups[0]["lr"])
            self.history.append({name: round(value, 6) for name, value in line.items()})
        if trainer.is_global_zero and (now - self._written > _PROGRESS_SECONDS or step == self._recipe.steps):
            seconds, done = now - self._began[0], step - self._began[1]
            rate = done / seconds if seconds > 0 else 0.0
            progress = {
                "step": step,
                "steps": self._recipe.steps,
                "loss": pl_module.terms["loss"],
                "samples_per_s": rate * self._recipe.global_batch,
                "eta_s": (self._recipe.steps - step) / rate if rate else None,
                "skipped": pl_module.skipped,
            }
            temporary = self._file.with_suffix(".tmp")
            temporary.write_text(json.dumps(progress))
            os.replace(temporary, self._file)
            self._written = now


@dataclass
class FitResult:
    """What a finished rank holds."""

    module: Sam3Training
    history: list[dict[str, float]]


def fit(
    spec: FitSpec,
    *,
    rank: int,
    world_size: int,
    barrier: Callable[[], None],
    make_trainer: Callable[[list[lightning.Callback]], lightning.Trainer],
    resume: Path | None = None,
) -> FitResult:
    """Train to the recipe's last step, from `resume` (a Lightning checkpoint file) where there is one."""
    recipe = spec.recipe
    torch.manual_seed(recipe.seed)
    prepare(spec, "train", rank, world_size)
    barrier()
    samples = open_samples(spec, "train")
    module = Sam3Training(recipe, start_model(recipe, spec.start))
    first_step = int(torch.load(resume, weights_only=True, mmap=True)["global_step"]) if resume else 0
    stream = BatchStream(
        samples,
        wording_of(Path(spec.data_root), spec.datasets),
        recipe,
        PromptTokenizer.from_installed(),
        rank=rank,
        world_size=world_size,
        first_step=first_step,
    )
    chronicle = Chronicle(Path(spec.run_dir), recipe)
    trainer = make_trainer([chronicle])
    # the stream batches by itself; batch_size=None passes its batches through
    loader = DataLoader(stream, batch_size=None, num_workers=0, collate_fn=None)
    trainer.fit(module, loader, ckpt_path=resume, weights_only=True)
    return FitResult(module, chronicle.history)
