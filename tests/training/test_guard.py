"""What is not finite changes nothing: weights, optimiser, average; and every rank agrees."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
import torch.multiprocessing
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from tests.training.made import write_dataset
from training.fit import open_samples, prepare, wording_of
from training.guard import NotFinite, StepGuard
from training.module import Sam3Training
from training.recipes import Recipe, tiny
from training.sam3 import sizes
from training.sam3.init import initialise
from training.sam3.tokenizer import PromptTokenizer
from training.schedule import rate_of
from training.spec import FitSpec
from training.stream import Batch, BatchStream

STEPS, BAD = 4, 2


def _recipe(**fields: Any) -> Recipe:
    sam3 = sizes.compact(
        image_size=32, patch=8, vision=32, vision_layers=2, width=32, text=32, queries=4, decoder_layers=2
    )
    return replace(tiny(), sam3=sam3, image_size=32, mask_size=16, steps=STEPS, global_batch=4, **fields)


class Stream(IterableDataset[Batch]):
    """The first batches of a rank's stream, one of them with a pixel that is no number."""

    def __init__(self, spec: FitSpec, rank: int, world_size: int, poisoned: tuple[int, ...]) -> None:
        self.stream = BatchStream(
            open_samples(spec, "train"),
            wording_of(Path(spec.data_root), spec.datasets),
            spec.recipe,
            PromptTokenizer.from_installed(),
            rank=rank,
            world_size=world_size,
            first_step=0,
        )
        self.poisoned = poisoned

    def __iter__(self) -> Iterator[Batch]:
        for step, batch in enumerate(islice(self.stream, STEPS)):
            if step in self.poisoned:
                batch.pixel_values[0, 0, 3, 3] = torch.nan
            yield batch


class Watch(lightning.Callback):
    """State before each step, and after it."""

    def __init__(self) -> None:
        self.before: list[dict[str, Any]] = []
        self.after: list[dict[str, Any]] = []

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.before.append(_state(trainer, pl_module))

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.after.append(_state(trainer, pl_module))


def _state(trainer: lightning.Trainer, module: lightning.LightningModule) -> dict[str, Any]:
    optimiser = trainer.optimizers[0]
    return copy.deepcopy(
        {
            "weights": dict(module.named_parameters()),
            "optimiser": optimiser.state_dict(),
            "rate": optimiser.param_groups[0]["lr"],
        }
    )


def _flat(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for key, part in value.items() if key not in ("lr", "rate") for leaf in [key, *_flat(part)]]
    if isinstance(value, list | tuple):
        return [leaf for part in value for leaf in _flat(part)]
    return [value]


def _same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    pairs = zip(_flat(first), _flat(second), strict=True)
    return all(torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in pairs)


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> FitSpec:
    root = tmp_path_factory.mktemp("data")
    write_dataset(root, "Alpha", 12)
    spec = FitSpec(_recipe(), str(root), ["Alpha"], str(tmp_path_factory.mktemp("run")))
    prepare(spec, "train", 0, 1)
    return spec


def _train(spec: FitSpec, poisoned: tuple[int, ...], **fields: Any) -> tuple[Sam3Training, Watch]:
    watch = Watch()
    module = Sam3Training(replace(spec.recipe, **fields))
    initialise(module.model, 1)
    _trainer([watch]).fit(module, DataLoader(Stream(spec, 0, 1, poisoned), batch_size=None))
    return module, watch


def _trainer(callbacks: list[lightning.Callback], **more: Any) -> lightning.Trainer:
    return lightning.Trainer(
        max_steps=STEPS,
        max_epochs=-1,
        accelerator="cpu",
        callbacks=callbacks,
        gradient_clip_val=1.0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **more,
    )


@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
def test_a_loss_that_is_not_finite_moves_nothing_and_the_next_step_goes_on_as_planned(
    spec: FitSpec, optimiser: str
) -> None:
    module, watch = _train(spec, (BAD,), optimiser=optimiser)
    assert _same(watch.before[BAD], watch.after[BAD])
    assert not _same(watch.before[BAD + 1], watch.after[BAD + 1])
    assert all(bool(torch.isfinite(value).all()) for value in module.state_dict().values())
    rate = rate_of(module.recipe)
    found = [state["rate"] / watch.before[0]["rate"] for state in watch.before]
    assert found == pytest.approx([rate(step) / rate(0) for step in range(STEPS)])
    (record,) = module.guard.records
    stream = list(islice(Stream(spec, 0, 1, ()).stream, STEPS))
    assert (record["step"], record["sample_ids"]) == (BAD, stream[BAD].sample_ids)
    assert "loss" in record["terms"]
    assert "semantic_dice" in record["terms"]
    assert module.skipped == 1


def test_a_gradient_alone_that_is_not_finite_is_found_and_named(spec: FitSpec) -> None:
    watch = Watch()
    module = Sam3Training(spec.recipe)
    initialise(module.model, 1)
    weight = module.model.mask_decoder.semantic_projection.weight
    calls = [0]

    def spoil(gradient: Tensor) -> Tensor:
        calls[0] += 1
        return gradient * torch.inf if calls[0] == BAD + 1 else gradient

    weight.register_hook(spoil)
    _trainer([watch]).fit(module, DataLoader(Stream(spec, 0, 1, ()), batch_size=None))
    assert module.terms["loss"] < 1e4
    assert _same(watch.before[BAD], watch.after[BAD])
    (record,) = module.guard.records
    assert record["terms"] == ["gradient", "mask_decoder.semantic_projection.weight"]
    assert len(record["sample_ids"]) == spec.recipe.global_batch


def test_without_anything_amiss_gradients_are_clipped_as_torch_clips_them() -> None:
    torch.manual_seed(0)
    ours = [torch.nn.Parameter(torch.randn(3, 4)) for _ in range(3)]
    for parameter in ours:
        parameter.grad = torch.randn(3, 4) * 5
    theirs = copy.deepcopy(ours)
    for parameter, twin in zip(ours, theirs, strict=True):
        assert parameter.grad is not None
        twin.grad = parameter.grad.clone()
    assert not StepGuard(3).clip_or_skip(((str(n), p) for n, p in enumerate(ours)), 0.5, 0)
    torch.nn.utils.clip_grad_norm_(theirs, 0.5)
    for parameter, twin in zip(ours, theirs, strict=True):
        assert parameter.grad is not None
        assert twin.grad is not None
        assert torch.equal(parameter.grad, twin.grad)


def test_too_many_in_a_row_stop_the_run_and_say_which(spec: FitSpec) -> None:
    with pytest.raises(NotFinite, match=r"2 steps in a row without, the last at step 2 in loss.*Alpha/"):
        _train(spec, (1, 2), most_skips_in_a_row=2)
    # with a good one between them they are not in a row
    module, _ = _train(spec, (0, 2), most_skips_in_a_row=2)
    assert module.skipped == 2


def test_a_resumed_run_knows_what_was_left_out(spec: FitSpec, tmp_path: Path) -> None:
    module = Sam3Training(spec.recipe)
    trainer = _trainer([])
    trainer.fit(module, DataLoader(Stream(spec, 0, 1, (BAD,)), batch_size=None))
    trainer.save_checkpoint(tmp_path / "state.ckpt")
    again = Sam3Training(spec.recipe)
    again.on_load_checkpoint(torch.load(tmp_path / "state.ckpt", weights_only=True))
    assert again.guard.state() == module.guard.state()
    assert again.skipped == 1


def test_two_ranks_leave_out_the_same_step_though_one_alone_was_hit(spec: FitSpec, tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_rank, (spec, tmp_path), nprocs=2)
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2))
    assert first == second
    (record,) = first["records"]
    assert (record["step"], record["ranks"]) == (BAD, [1])
    poisoned = list(islice(Stream(spec, 1, 2, ()).stream, STEPS))[BAD]
    assert record["sample_ids"] == poisoned.sample_ids
    assert first["unmoved"] == [step == BAD for step in range(STEPS)]


def _rank(rank: int, spec: FitSpec, folder: Path) -> None:
    torch.set_num_threads(1)
    # what torchrun sets, so that Lightning takes the ranks as they are
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", TORCHELASTIC_RUN_ID="test"
    )
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    watch = Watch()
    module = Sam3Training(spec.recipe)
    initialise(module.model, 1)
    trainer = _trainer([watch], devices=2, strategy="ddp_find_unused_parameters_true")
    trainer.fit(module, DataLoader(Stream(spec, rank, 2, (BAD,) if rank == 1 else ()), batch_size=None))
    weights = [float(value.double().sum()) for value in module.state_dict().values()]
    unmoved = [_same(before, after) for before, after in zip(watch.before, watch.after, strict=True)]
    result = {"records": module.guard.records, "weights": weights, "unmoved": unmoved}
    (folder / f"rank{rank}.json").write_text(json.dumps(result))
    torch.distributed.destroy_process_group()
