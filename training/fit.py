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
import numpy as np
import torch
from torch.utils.data import DataLoader
from transformers.models.sam3.configuration_sam3 import Sam3Config

from training.module import Sam3Training
from training.prepared import PreparedSamples, prepare_shard
from training.prompting import Vocabulary
from training.recipes import Recipe
from training.sam3.checkpoint import load_into
from training.sam3.init import initialise
from training.sam3.model import PromptableSam3
from training.sam3.strict import LoadReport
from training.sam3.tokenizer import PromptTokenizer
from training.shard_samples import ShardSamples
from training.spec import PROGRESS_FILE, FitSpec
from training.store import ShardFile, ShardStore
from training.stream import Batch, BatchStream

HISTORY_EVERY = 10  # steps between lines of history.jsonl
STREAM_STATE = "stream"  # key of a checkpoint
_PROGRESS_SECONDS = 0.5


def start_model(recipe: Recipe, start: str, *, digest: bool = False) -> tuple[PromptableSam3, LoadReport | None]:
    """The model before training, and the report of what was loaded.

    Weights in any layout that `training.sam3.checkpoint` reads, or `initialise` with the recipe's seed (the same
    on every rank), which has no report.
    """
    model = PromptableSam3(Sam3Config(**recipe.sam3))
    if start:
        return model, load_into(model, start, digest=digest)
    initialise(model, recipe.seed)
    return model, None


def open_store(spec: FitSpec) -> ShardStore:
    """The dataset versions of a run, with their local copies where they are remote."""
    return ShardStore(spec.data_root, spec.scratch, spec.loader.cache_bytes)


def prepare(spec: FitSpec, split: str, rank: int, world_size: int, store: ShardStore | None = None) -> None:
    """Check this rank's share of the shards, and prepare them where the recipe wants that; all ranks do all."""
    store = store or open_store(spec)
    shards = [shard for dataset in spec.datasets for shard in store.shards(dataset)]
    share = shards[rank::world_size]
    if spec.recipe.stream == "shards":
        store.check(share)
        return
    for shard in share:
        _prepared_folder(spec, store, shard, split)


def open_samples(spec: FitSpec, split: str, store: ShardStore | None = None) -> PreparedSamples | ShardSamples:
    """All samples of a split, in an order that every rank shares."""
    store = store or open_store(spec)
    if spec.recipe.stream == "shards":
        return ShardSamples(
            store,
            spec.datasets,
            split,
            buffer_bytes=spec.loader.buffer_bytes,
            with_objects=spec.recipe.negative_share == 0,
            neighbours=spec.recipe.neighbours,
        )
    shards = {dataset: store.shards(dataset) for dataset in spec.datasets}
    return PreparedSamples(
        {name: [_prepared_folder(spec, store, shard, split) for shard in each] for name, each in shards.items()},
        [shard for each in shards.values() for shard in each],
    )


def open_stream(spec: FitSpec, split: str, rank: int, world_size: int, store: ShardStore | None = None) -> BatchStream:
    """The training batches of one rank."""
    store = store or open_store(spec)
    roots = [store.folder(dataset).parent for dataset in spec.datasets]
    return BatchStream(
        open_samples(spec, split, store),
        wording_of(roots[0], spec.datasets),
        spec.recipe,
        PromptTokenizer.find(spec.tokenizer, spec.start),
        rank=rank,
        world_size=world_size,
        loader=spec.loader,
    )


def _prepared_folder(spec: FitSpec, store: ShardStore, shard: ShardFile, split: str) -> Path:
    recipe = spec.recipe
    return prepare_shard(
        shard,
        split,
        Path(spec.run_dir) / "prepared",
        image_size=recipe.image_size,
        mask_size=recipe.mask_size,
        max_instances=recipe.max_instances,
        preprocessing=recipe.preprocessing,
        store=store,
    )


def wording_of(data_root: Path, datasets: Iterable[str]) -> Vocabulary:
    """Prompts and kin of every concept of the datasets."""
    return Vocabulary.of(data_root, datasets)


class Place(lightning.Callback):
    """Puts into every checkpoint where the stream was: after the batches that were trained on, not those made ready.

    It also seeds torch anew for every batch, from seed, step and rank: random numbers have no state that a checkpoint
    would have to carry for each rank.
    """

    def __init__(self, stream: BatchStream, seed: int, rank: int) -> None:
        self._stream, self._seed, self._rank = stream, seed, rank
        self._step = stream.first_step

    def on_train_batch_start(self, *args: Any, **kwargs: Any) -> None:
        """Dropout and the like draw from here."""
        torch.manual_seed(int(np.random.SeedSequence([self._seed, 4, self._step, self._rank]).generate_state(1)[0]))

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """One more batch."""
        self._step += 1

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Write it down."""
        checkpoint[STREAM_STATE] = self._stream.state_dict(self._step)


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
    module_class: type[Sam3Training] = Sam3Training,
) -> FitResult:
    """Train to the recipe's last step, from `resume` (a Lightning checkpoint file) where there is one."""
    recipe = spec.recipe
    torch.manual_seed(recipe.seed)
    store = open_store(spec)
    prepare(spec, "train", rank, world_size, store)
    barrier()
    model, _ = start_model(recipe, spec.start)
    module = module_class(recipe, model)
    stream = open_stream(spec, "train", rank, world_size, store)
    if resume:
        stream.load_state_dict(torch.load(resume, weights_only=True, mmap=True)[STREAM_STATE])
    chronicle = Chronicle(Path(spec.run_dir), recipe)
    trainer = make_trainer([Place(stream, recipe.seed, rank), chronicle])
    # the stream batches by itself; batch_size=None passes its batches through
    loader = DataLoader(
        stream,
        batch_size=None,
        num_workers=spec.loader.workers,
        pin_memory=torch.cuda.is_available(),
        prefetch_factor=spec.loader.ahead if spec.loader.workers else None,
    )
    trainer.fit(module, loader, ckpt_path=resume, weights_only=True)
    return FitResult(module, chronicle.history)
