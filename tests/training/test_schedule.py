"""Learning rates by step, by part of the model and by depth."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn
from transformers.models.sam3.configuration_sam3 import Sam3Config

from training.optimiser import make_optimiser, part_of, vision_depth
from training.recipes import Recipe, paper, tiny
from training.sam3 import sizes
from training.sam3.model import PromptableSam3
from training.schedule import cosine, inverse_sqrt, rate_of


def _model(config: dict[str, object]) -> PromptableSam3:
    with torch.device("meta"):
        return PromptableSam3(Sam3Config(**config))


def _rates(model: nn.Module, recipe: Recipe) -> dict[str, float]:
    """Learning rate of each parameter, as the optimiser holds it."""
    by_id = {
        id(parameter): group["lr"]
        for group in make_optimiser(model, recipe).param_groups
        for parameter in group["params"]
    }
    return {name: by_id[id(parameter)] for name, parameter in model.named_parameters()}


@pytest.mark.parametrize(
    ("config", "layers"), [(sizes.scaled(128), 32), (sizes.tiny(), 4)], ids=["as deep as the official", "tiny"]
)
@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
def test_layer_wise_decay_reaches_every_layer(config: dict[str, object], layers: int, optimiser: str) -> None:
    model = _model(config)
    recipe = replace(tiny(), layer_decay=0.85, optimiser=optimiser, matrix_rate=1.0)
    rates = _rates(model, recipe)
    of_layer = [
        {rate for name, rate in rates.items() if name.startswith(f"vision_encoder.backbone.layers.{layer}.")}
        for layer in range(layers)
    ]
    assert all(len(found) == 1 for found in of_layer)
    by_depth = [found.pop() for found in of_layer]
    embeddings = {
        rate
        for name, rate in rates.items()
        if name.startswith(("vision_encoder.backbone.embeddings.", "vision_encoder.backbone.layer_norm."))
    }
    assert len(embeddings) == 1
    chain = [embeddings.pop(), *by_depth]
    for lower, upper in itertools.pairwise(chain):
        assert lower / upper == pytest.approx(0.85)
    assert chain[-1] == pytest.approx(0.85 * recipe.learning_rate)
    others = {rate for name, rate in rates.items() if not name.startswith("vision_encoder.backbone.")}
    assert others == {recipe.learning_rate}


def test_a_vision_parameter_that_no_rule_finds_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"backbone\.blocks\.3\.norm is neither"):
        vision_depth("vision_encoder.backbone.blocks.3.norm", 32)


def test_every_part_has_a_rate_of_its_own() -> None:
    model = _model(sizes.tiny())
    parts = ("vision", "neck", "text", "geometry", "encoder", "decoder", "segmentation", "scoring")
    factors = {f"{part}_rate": 2.0 + number for number, part in enumerate(parts)}
    recipe = replace(tiny(), optimiser="adamw", learning_rate=1.0, **factors)  # type: ignore[arg-type]
    rates = _rates(model, recipe)
    assert {part_of(name) for name in rates} == set(parts)
    for name, rate in rates.items():
        assert rate == factors[f"{part_of(name)}_rate"]


def test_the_paper_s_rates_are_the_paper_s() -> None:
    rates = _rates(_model(sizes.scaled(128)), paper(width=128))
    for name, wanted in (
        ("detr_decoder.query_embed.weight", 3e-4),
        ("mask_decoder.semantic_projection.weight", 3e-4),
        ("dot_product_scoring.text_proj.weight", 3e-4),
        ("geometry_encoder.cls_embed.weight", 1e-4),
        ("text_encoder.text_model.final_layer_norm.weight", 5e-5),
        ("text_projection.weight", 5e-5),
        ("vision_encoder.neck.fpn_layers.0.proj1.weight", 5e-5),
        ("vision_encoder.backbone.layers.31.layer_norm1.weight", 5e-5 * 0.85),
        ("vision_encoder.backbone.layers.0.layer_norm1.weight", 5e-5 * 0.85**32),
    ):
        assert rates[name] == pytest.approx(wanted), name


def _official_inverse_sqrt(step: int, steps: int, warmup: int, cooldown: int, time_scale: int) -> float:
    """The official rule, read in words: decay from the end of the warm-up, both ramps on top of it."""
    value = 1 / math.sqrt((step + time_scale - warmup) / time_scale) if step > warmup else 1.0
    return value * min(1.0, step / warmup) * min(1.0, (steps - step) / cooldown)


def test_inverse_sqrt_is_the_official_rule_after_its_first_step() -> None:
    steps, warmup, cooldown, time_scale = 400, 100, 50, 10
    rate = inverse_sqrt(steps, warmup, cooldown, time_scale)
    for step in range(warmup, steps):
        assert rate(step) == pytest.approx(_official_inverse_sqrt(step, steps, warmup, cooldown, time_scale))
    for step in range(warmup):  # one step ahead: the official step 0 has rate 0
        assert rate(step) == pytest.approx((step + 1) / warmup)


@pytest.mark.parametrize("rate", [cosine(300, 20, 0.02), inverse_sqrt(300, 20, 30, 40)], ids=["cosine", "inverse_sqrt"])
def test_a_schedule_rises_to_one_and_falls_from_then_on(rate: Callable[[int], float]) -> None:
    values = [rate(step) for step in range(300)]
    assert values[:21] == sorted(values[:21])
    assert max(values) == values[20] == 1.0
    assert values[20:] == sorted(values[20:], reverse=True)
    assert values[0] > 0
    assert 0 < values[-1] < 0.1


def test_the_recipe_chooses_the_schedule() -> None:
    recipe = replace(tiny(), warmup_steps=10)
    assert rate_of(recipe)(9) == 1.0
    slow, fast = (
        rate_of(replace(recipe, schedule="inverse_sqrt", time_scale=scale))(recipe.steps - 1) for scale in (500, 10)
    )
    assert rate_of(recipe)(recipe.steps - 1) < fast < slow
