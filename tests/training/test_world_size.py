"""A step is the same step on any number of ranks: its loss, its terms, its gradients. Real processes over gloo.

The ranks get unlike numbers of images, prompts and objects, and one of them none of the objects; each term of the loss
is on alone once, and every switch of the recipes is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import fields, replace
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
from training.fit import open_stream, prepare
from training.module import Sam3Training
from training.recipes import RECIPES, Recipe, full, paper, small, tiny
from training.sam3 import sizes
from training.sam3.init import initialise
from training.sam3.losses import LossWeights
from training.spec import FitSpec
from training.stream import Batch

pytestmark = pytest.mark.slow
TERMS = [
    "boxes_l1",
    "boxes_giou",
    "classification",
    "presence",
    "masks_focal",
    "masks_dice",
    "semantic_focal",
    "semantic_dice",
]
OFF = dict.fromkeys(TERMS, 0.0)
CASES: dict[str, dict[str, float]] = {
    **{name: {**OFF, name: getattr(LossWeights(), name)} for name in TERMS},
    "one_to_many": {"one_to_many": 2.0},
    "padded_queries": {**OFF, "classification": 20.0, "padded_queries": 200},
    "scale_by_prompts": {"scale_by_prompts": 0.5},
    **{make().name: make().losses for make in (tiny, small, paper, full)},
}
GLOBAL_BATCH = 4  # on three ranks: 1, 1 and 2 images


def _recipe(losses: dict[str, float]) -> Recipe:
    sam3 = sizes.compact(
        image_size=32, patch=8, vision=32, vision_layers=2, width=32, text=32, queries=6, decoder_layers=2
    )
    return replace(
        tiny(),
        sam3=sam3,
        image_size=32,
        mask_size=16,
        steps=1,
        global_batch=GLOBAL_BATCH,
        prompts_per_image=3,
        box_prompt_share=0.5,
        losses=losses,
    )


class OneStep(IterableDataset[Batch]):
    """A rank's part of the first step; the objects of the step's first image were not annotated."""

    def __init__(self, spec: FitSpec, rank: int, world_size: int) -> None:
        self.stream = open_stream(spec, "train", rank, world_size)
        self.rank = rank

    def __iter__(self) -> Iterator[Batch]:
        for batch in islice(self.stream, 1):
            targets = batch.targets
            if self.rank == 0:
                kept = batch.image_of_prompt[targets.prompt] > 0
                semantic = targets.semantic.clone()
                semantic[batch.image_of_prompt == 0] = 0
                targets = replace(
                    targets,
                    boxes_cxcywh=targets.boxes_cxcywh[kept],
                    prompt=targets.prompt[kept],
                    masks=targets.masks[kept],
                    semantic=semantic,
                )
            yield replace(batch, targets=targets)


class Gradients(lightning.Callback):
    """What the optimiser is about to see."""

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self.found = {
            name: parameter.grad.clone()
            for name, parameter in pl_module.model.named_parameters()
            if parameter.grad is not None
        }

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Batch, batch_idx: int) -> None:
        self.sizes = [len(batch.sample_ids), len(batch.image_of_prompt), len(batch.targets.prompt)]


def _rank(rank: int, world_size: int, data: Path, folder: Path) -> None:
    torch.set_num_threads(1)
    # what torchrun sets, so that Lightning takes the ranks as they are
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), TORCHELASTIC_RUN_ID="test")
    os.environ.update(WORLD_SIZE=str(world_size), LOCAL_WORLD_SIZE=str(world_size))
    more: dict[str, Any] = {}
    if world_size > 1:
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size
        )
        more = {"devices": world_size, "strategy": "ddp_find_unused_parameters_true"}
    kept: dict[str, Any] = {}
    for name, losses in CASES.items():
        spec = FitSpec(_recipe(losses), str(data), ["Alpha"], str(data.parent / "run"))
        watch = Gradients()
        module = Sam3Training(spec.recipe)
        initialise(module.model, 1)
        trainer = lightning.Trainer(
            max_steps=1,
            accelerator="cpu",
            callbacks=[watch],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            **more,
        )
        trainer.fit(module, DataLoader(OneStep(spec, rank, world_size), batch_size=None))
        kept[name] = {"gradients": watch.found, "terms": module.terms, "sizes": watch.sizes}
    torch.save(kept, folder / f"rank{rank}.pt")


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[dict[str, Any]]]:
    """By world size: what each rank has seen, by case."""
    root = tmp_path_factory.mktemp("worlds")
    data = write_dataset(root / "data", "Alpha", 12).parent
    prepare(FitSpec(_recipe({}), str(data), ["Alpha"], str(root / "run")), "train", 0, 1)
    found = {}
    torch.multiprocessing.get_context("forkserver").set_forkserver_preload([__name__])
    for world_size in (1, 2, 3):
        folder = root / str(world_size)
        folder.mkdir()
        torch.multiprocessing.start_processes(
            _rank, (world_size, data, folder), nprocs=world_size, start_method="forkserver"
        )
        found[world_size] = [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(world_size)]
    return found


def test_the_ranks_have_unlike_parts_of_the_same_step(steps: dict[int, list[dict[str, Any]]]) -> None:
    sizes = {world: [rank["tiny"]["sizes"] for rank in ranks] for world, ranks in steps.items()}
    assert {tuple(map(sum, zip(*parts, strict=True))) for parts in sizes.values()} == {tuple(sizes[1][0])}
    images, prompts, objects = zip(*sizes[3], strict=True)
    assert len(set(images)) > 1
    assert len(set(prompts)) > 1
    assert objects[0] == 0 < min(objects[1:])


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("case", CASES)
def test_gradients_and_terms_are_those_of_one_rank(
    steps: dict[int, list[dict[str, Any]]], case: str, world_size: int
) -> None:
    alone = steps[1][0][case]
    largest = max(float(gradient.abs().max()) for gradient in alone["gradients"].values())
    assert largest > 0
    for rank in steps[world_size]:
        assert rank[case]["terms"] == pytest.approx(alone["terms"], rel=1e-5, abs=1e-6)
        found: dict[str, Tensor] = rank[case]["gradients"]
        assert found.keys() == alone["gradients"].keys()
        for name, wanted in alone["gradients"].items():
            torch.testing.assert_close(
                found[name], wanted, rtol=1e-5, atol=1e-5 * largest, msg=lambda m, n=name: f"{n}: {m}"
            )


def test_no_switch_of_the_loss_is_left_out() -> None:
    assert {make().name for make in RECIPES.values()} <= CASES.keys()
    moved = {
        name for losses in CASES.values() for name, value in losses.items() if value != getattr(LossWeights(), name)
    }
    assert moved == {each.name for each in fields(LossWeights)}
