"""Recipes and their overrides; every recipe's real steps, the official architecture at a smaller width."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch

from infra.errors import UsageError
from tests.training.made import write_dataset
from training.distributed import precision_of
from training.fit import fit, start_model
from training.module import Sam3Training
from training.recipes import OFFICIAL, RECIPES, Recipe, full, paper, resolve, small, tiny
from training.sam3 import losses
from training.sam3.activation_checkpointing import PARTS
from training.sam3.losses import Counts, LossWeights, Targets, criterion
from training.sam3.model import Predictions
from training.spec import FitSpec


def test_overrides_change_the_fields_they_name_and_no_other() -> None:
    params = {
        "recipe": "tiny",
        "steps": 12,
        "overrides": {
            "learning_rate": "1e-4",  # what YAML makes of 1e-4
            "schedule": "inverse_sqrt",
            "betas": [0.9, 0.999],
            "prompts_per_image": 4,
            "modality_wording": True,
            "losses": {"masks_dice": 0},
            "augment": {"gamma": 0.2},
        },
    }
    expected = replace(
        tiny(),
        steps=12,
        learning_rate=1e-4,
        schedule="inverse_sqrt",
        betas=(0.9, 0.999),
        prompts_per_image=4,
        modality_wording=True,
        losses={**tiny().losses, "masks_dice": 0.0},
        augment={**tiny().augment, "gamma": 0.2},
    )
    assert resolve(params) == expected


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"learning_rat": 1}, ["train.overrides.learning_rat", "expected a field of a recipe", "learning_rate"]),
        ({"learning_rate": "fast"}, ["train.overrides.learning_rate", "a finite number", "'fast'"]),
        ({"learning_rate": float("nan")}, ["train.overrides.learning_rate", "a finite number"]),
        ({"learning_rate": True}, ["train.overrides.learning_rate", "a finite number", "True"]),
        ({"prompts_per_image": 2.5}, ["train.overrides.prompts_per_image", "a whole number", "2.5"]),
        ({"modality_wording": 1}, ["train.overrides.modality_wording", "true or false", "1"]),
        ({"schedule": "linear"}, ["train.overrides.schedule", "'cosine' or 'inverse_sqrt'", "'linear'"]),
        ({"betas": [0.9]}, ["train.overrides.betas", "a list of 2", "[0.9]"]),
        ({"betas": [0.9, "x"]}, ["train.overrides.betas", "a finite number", "'x'"]),
        ({"losses": {"masks": 1}}, ["train.overrides.losses.masks", "masks_focal"]),
        ({"augment": {"flop": 1}}, ["train.overrides.augment.flop", "elastic"]),
        ({"augment": 3}, ["train.overrides.augment", "keys with", "3"]),
        ({"image_size": 64}, ["train.overrides.image_size", "train.image_size"]),
        ({"seed": 1}, ["train.overrides.seed", "train.seed"]),
    ],
)
def test_a_wrong_override_is_named(overrides: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(UsageError) as raised:
        resolve({"recipe": "tiny", "overrides": overrides})
    for word in words:
        assert word in str(raised.value)


def test_size_is_for_the_official_model_alone() -> None:
    recipe = resolve({"recipe": "full", "width": 256, "image_size": 224, "steps": 3})
    assert recipe == replace(full(256, 224), steps=3)
    assert recipe.sam3["vision_config"]["backbone_config"]["num_hidden_layers"] == 32
    with pytest.raises(UsageError, match=r"train\.width: expected 0 for recipe tiny"):
        resolve({"recipe": "tiny", "width": 256})


def test_full_mends_what_the_paper_lacks() -> None:
    theirs, ours = paper(), full()
    assert (theirs.image_size, theirs.temperature, theirs.negative_share, theirs.ema_decay) == (1008, 1.0, 0.0, 0.0)
    off = LossWeights(**theirs.losses)
    assert (off.masks_focal, off.masks_dice) == (0.0, 0.0)
    on = LossWeights(**ours.losses)
    assert replace(on, one_to_many=0, padded_queries=0, scale_by_prompts=0) == LossWeights()  # all official, all on
    assert (on.one_to_many, off.one_to_many) == (2.0, 2.0)
    assert ours.temperature < 1
    assert ours.negative_share > 0 < ours.hard_negative_share
    assert ours.ema_decay > 0
    assert ours.calibrate_presence
    assert theirs.sam3 == ours.sam3


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_dataset(root, "Alpha", 8)
    return root


@pytest.mark.parametrize(
    "make", [tiny, small, lambda: paper(128, 112), lambda: full(128, 112)], ids=["tiny", "small", "paper", "full"]
)
def test_every_recipe_takes_real_steps(data: Path, tmp_path: Path, make: Callable[[], Recipe]) -> None:
    recipe = replace(make(), global_batch=2, steps=2)
    spec = FitSpec(recipe, str(data), ["Alpha"], str(tmp_path))

    def make_trainer(callbacks: list[lightning.Callback]) -> lightning.Trainer:
        return lightning.Trainer(
            max_steps=recipe.steps,
            max_epochs=-1,
            accelerator="cpu",
            callbacks=callbacks,
            gradient_clip_val=recipe.clip_norm,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )

    result = fit(spec, rank=0, world_size=1, barrier=lambda: None, make_trainer=make_trainer)
    module = result.module
    assert module.skipped == 0
    of_maps = ("masks_focal", "masks_dice", "semantic_focal", "semantic_dice")
    weights = asdict(LossWeights(**recipe.losses))
    assert module.terms.keys() & set(of_maps) == {name for name in of_maps if weights[name] > 0}
    assert any(name.endswith("_one_to_many") for name in module.terms) == (weights["one_to_many"] > 0)
    _all_layers_take_part(recipe, module)
    assert bool(module.average) == (recipe.ema_decay > 0)
    kept = module.averaged_state()
    live = module.model.state_dict()
    assert kept.keys() == live.keys()
    # without an average the weights themselves are kept, with one they lag behind
    equal = all(torch.equal(kept[name], live[name]) for name in live)
    assert equal == (recipe.ema_decay == 0)


@pytest.mark.parametrize("precision", ["auto", "fp32", "bf16"])
def test_precision_is_that_of_products_and_not_of_weights(data: Path, tmp_path: Path, precision: Any) -> None:
    recipe = replace(tiny(), global_batch=2, steps=1, precision=precision)
    seen: set[torch.dtype] = set()

    def make_trainer(callbacks: list[lightning.Callback]) -> lightning.Trainer:
        return lightning.Trainer(
            max_steps=1,
            max_epochs=-1,
            accelerator="cpu",
            callbacks=[*callbacks, Watch()],
            precision=precision_of(recipe, on_gpu=False),
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )

    class Watch(lightning.Callback):
        def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
            layer = next(module for module in pl_module.modules() if isinstance(module, torch.nn.Linear))
            layer.register_forward_hook(lambda _module, _given, made: seen.add(made.dtype))

    spec = FitSpec(recipe, str(data), ["Alpha"], str(tmp_path))
    module = fit(spec, rank=0, world_size=1, barrier=lambda: None, make_trainer=make_trainer).module
    assert seen == {torch.bfloat16 if precision == "bf16" else torch.float32}
    assert {value.dtype for value in module.averaged_state().values() if value.is_floating_point()} == {torch.float32}
    assert module.skipped == 0
    on_gpu = {"auto": "bf16-mixed", "fp32": "32-true", "bf16": "bf16-mixed"}
    assert precision_of(recipe, on_gpu=True) == on_gpu[precision]


def _all_layers_take_part(recipe: Recipe, module: Sam3Training) -> None:
    """The parts that are recomputed, dropout, and a step for every layer of the vision encoder at a rate of its own."""
    recomputed = [each for each in module.model.modules() if getattr(each, "gradient_checkpointing", False)]
    expected = [layer for part in recipe.checkpoint_parts for layer in PARTS[part](module.model)]
    assert {id(each) for each in recomputed} == {id(each) for each in expected}
    if recipe.name not in OFFICIAL:
        return
    assert any(isinstance(each, torch.nn.Dropout) and each.p > 0 for each in module.model.detr_decoder.modules())
    start, _ = start_model(recipe, "")
    before = dict(start.named_parameters())
    layers = module.model.vision_encoder.backbone.layers
    assert len(layers) == 32
    for number in range(len(layers)):
        prefix = f"vision_encoder.backbone.layers.{number}."
        moved = [not torch.equal(v, before[k]) for k, v in module.model.named_parameters() if k.startswith(prefix)]
        assert any(moved), prefix
    groups = module.optimizers().optimizer.param_groups
    assert len({group["initial_lr"] for group in groups}) > len(layers)


def _predictions(dtype: torch.dtype) -> tuple[Predictions, Targets]:
    draw = torch.Generator().manual_seed(5)
    logits = torch.randn(2, 3, 6, generator=draw) * 3
    boxes = torch.rand(2, 3, 6, 4, generator=draw) * 0.5 + 0.2
    predictions = Predictions(
        logits=logits.to(dtype).requires_grad_(),
        boxes_cxcywh=boxes.to(dtype).requires_grad_(),
        presence=torch.randn(2, 3, generator=draw).to(dtype).requires_grad_(),
        masks=torch.randn(3, 6, 16, 16, generator=draw).to(dtype).requires_grad_(),
        semantic=torch.randn(3, 16, 16, generator=draw).to(dtype).requires_grad_(),
    )
    targets = Targets(
        boxes_cxcywh=torch.rand(4, 4, generator=draw) * 0.4 + 0.3,
        prompt=torch.tensor([0, 0, 0, 2]),
        masks=(torch.rand(4, 32, 32, generator=draw) > 0.5).float(),
        semantic=(torch.rand(3, 32, 32, generator=draw) > 0.5).float(),
    )
    return predictions, targets


def test_matching_and_losses_are_fp32_under_bf16_autocast() -> None:
    """What a bf16 model says, judged in fp32: the same figures with autocast as with its outputs cast up before."""
    predictions, targets = _predictions(torch.bfloat16)
    given = {name: value for name, value in vars(predictions).items() if value is not None}
    exact = Predictions(**{name: value.detach().float().requires_grad_() for name, value in given.items()})
    with torch.autocast("cpu", torch.bfloat16):
        loss, terms = criterion(predictions, targets, LossWeights(), Counts.of(targets))
    wanted, wanted_terms = criterion(exact, targets, LossWeights(), Counts.of(targets))
    assert loss.dtype == torch.float32
    assert torch.equal(loss, wanted)
    assert all(terms[name].dtype == torch.float32 for name in terms)
    assert all(torch.equal(terms[name], wanted_terms[name]) for name in terms)
    loss.backward()
    wanted.backward()
    for name, value in given.items():
        torch.testing.assert_close(value.grad.float(), vars(exact)[name].grad, rtol=0.01, atol=1e-6)


def test_a_loss_of_weight_zero_is_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    predictions, targets = _predictions(torch.float32)
    everything, terms = criterion(predictions, targets, LossWeights(), Counts.of(targets))
    alone, left = criterion(predictions, targets, LossWeights(masks_focal=0, masks_dice=0), Counts.of(targets))
    assert terms.keys() - left.keys() == {"masks_focal", "masks_dice"}
    masks = 200 * terms["masks_focal"] + 10 * terms["masks_dice"]
    torch.testing.assert_close(everything - masks, alone)
    alone.backward()
    assert predictions.masks.grad is None
    assert predictions.semantic.grad is not None

    def never(*_: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr(losses, "mask_losses", never)
    monkeypatch.setattr(losses, "semantic_losses", never)
    off = LossWeights(masks_focal=0, masks_dice=0, semantic_focal=0, semantic_dice=0)
    _, rest = criterion(predictions, targets, off, Counts.of(targets))
    assert set(rest) == {"boxes_l1", "boxes_giou", "classification", "presence"}


def test_all_recipes_have_their_own_name() -> None:
    for name, make in RECIPES.items():
        assert make().name == name
