"""Recomputed layers: the same gradients, dropout included, from fewer bytes; frozen parts cost none."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from transformers.models.sam3.configuration_sam3 import Sam3Config

from infra.errors import UsageError
from training.memory_plan import saved_bytes
from training.module import Sam3Training
from training.optimiser import make_optimiser
from training.recipes import resolve, tiny
from training.sam3.activation_checkpointing import PARTS, checkpoint_activations, parts_of
from training.sam3.init import initialise
from training.sam3.model import PADDING_LABEL, Predictions, PromptableSam3

IMAGES, PROMPTS = 2, 5


@pytest.fixture(scope="module")
def model() -> PromptableSam3:
    config = copy.deepcopy(tiny().sam3)
    # dropout, so that a layer that is run again with other random numbers is found out
    for part in ("geometry_encoder_config", "detr_encoder_config", "detr_decoder_config", "mask_decoder_config"):
        config[part]["dropout"] = 0.1
    config["vision_config"]["backbone_config"]["hidden_dropout"] = 0.1
    config["text_config"]["attention_dropout"] = 0.1
    model = PromptableSam3(Sam3Config(**config))
    initialise(model, 3)
    # the initial box head is zero, and so would be every gradient through it
    torch.nn.init.normal_(model.detr_decoder.box_head.layer3.weight, std=0.1)
    return model.train()


def inputs(size: int = 96) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    labels = torch.full((PROMPTS, 2), PADDING_LABEL)
    labels[0, 0], labels[3, 1] = 1, 0
    return {
        "pixel_values": torch.randn(IMAGES, 3, size, size, generator=generator),
        "input_ids": torch.tensor([[49406, 320, 49407, *[0] * 29], [49406, 2368, 539, 49407, *[0] * 28]]),
        "image_of_prompt": torch.tensor([0, 0, 0, 1, 1]),
        "text_of_prompt": torch.tensor([0, 1, 1, 0, 1]),
        "boxes_cxcywh": torch.rand(PROMPTS, 2, 4, generator=generator) * 0.4 + 0.2,
        "box_labels": labels,
    }


def forward(model: PromptableSam3, given: dict[str, torch.Tensor]) -> torch.Tensor:
    torch.manual_seed(11)
    images, text = model.encode_images(given["pixel_values"]), model.encode_text(given["input_ids"])
    named = {name: value for name, value in given.items() if name not in ("pixel_values", "input_ids")}
    return total(model.decode(images, text, **named))


def total(found: Predictions) -> torch.Tensor:
    parts = (found.logits, found.boxes_cxcywh, found.presence, found.masks, found.semantic)
    return torch.stack([part.float().square().mean() for part in parts]).sum()


def gradients(model: PromptableSam3, parts: tuple[str, ...]) -> tuple[float, dict[str, torch.Tensor]]:
    checkpoint_activations(model, parts)
    model.zero_grad(set_to_none=True)
    loss = forward(model, inputs())
    loss.backward()
    return loss.item(), {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


@pytest.mark.parametrize("part", [*PARTS, "all"])
def test_gradients_are_those_of_a_run_without(model: PromptableSam3, part: str) -> None:
    loss, wanted = gradients(model, ())
    again, found = gradients(model, (part,))
    assert again == loss
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-6, atol=1e-7, msg=lambda m, n=name: f"{n}: {m}")


def test_a_layer_is_run_twice_and_only_where_asked(model: PromptableSam3) -> None:
    calls: dict[str, int] = {}
    hooks = []
    for part, layers_of in PARTS.items():
        # a submodule, since transformers' layers checkpoint inside of their own __call__
        watched = next(child for child in next(iter(layers_of(model))).modules() if isinstance(child, torch.nn.Linear))

        def count(*_: Any, part: str) -> None:
            calls[part] = calls.get(part, 0) + 1

        hooks.append(watched.register_forward_hook(partial(count, part=part)))
    gradients(model, ())
    once = dict(calls)
    calls.clear()
    gradients(model, ("text", "mask"))
    for hook in hooks:
        hook.remove()
    assert calls == {part: times * (2 if part in ("text", "mask") else 1) for part, times in once.items()}


@pytest.mark.parametrize("part", list(PARTS))
def test_each_part_keeps_fewer_bytes(model: PromptableSam3, part: str) -> None:
    checkpoint_activations(model, ())
    kept = saved_bytes(lambda: forward(model, inputs()), model)
    checkpoint_activations(model, (part,))
    fewer = saved_bytes(lambda: forward(model, inputs()), model)
    assert fewer.activations < kept.activations
    checkpoint_activations(model, ("all",))
    fewest = saved_bytes(lambda: forward(model, inputs()), model)
    assert fewest.activations < 0.25 * kept.activations


def test_nothing_is_recomputed_when_nothing_is_trained(model: PromptableSam3) -> None:
    checkpoint_activations(model, ("all",))
    model.eval()
    try:
        with torch.no_grad():
            found = forward(model, inputs())
            checkpoint_activations(model, ())
            assert torch.equal(found, forward(model, inputs()))
    finally:
        model.train()


def test_names_of_parts() -> None:
    assert parts_of(["mask", "vision"]) == ("vision", "mask")
    assert parts_of(["all"]) == tuple(PARTS)
    assert parts_of([]) == ()
    with pytest.raises(UsageError, match=r"checkpoint_parts: expected some of all, vision, .* found head"):
        parts_of(["head"])


def test_the_recipe_checkpoints_and_freezes() -> None:
    module = Sam3Training(replace(tiny(), checkpoint_parts=("vision", "mask"), freeze=("text",)))
    on = {part: all(layer.gradient_checkpointing for layer in layers(module.model)) for part, layers in PARTS.items()}
    assert on == {part: part in ("vision", "mask") for part in PARTS}
    frozen = {name for name, value in module.model.named_parameters() if not value.requires_grad}
    assert frozen == {
        name for name, _ in module.model.named_parameters() if name.startswith(("text_encoder.", "text_projection."))
    }


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_frozen_part_stays_and_has_no_state(kind: str) -> None:
    recipe = replace(tiny(), freeze=("vision",), optimiser=kind)
    module = Sam3Training(recipe)
    initialise(module.model, 3)
    before = {name: value.detach().clone() for name, value in module.model.named_parameters()}
    optimiser = make_optimiser(module.model, recipe)
    forward(module.model, inputs()).backward()
    optimiser.step()
    module.on_train_batch_end(None, None, 0)  # type: ignore[arg-type]
    names = {id(value): name for name, value in module.model.named_parameters()}
    moved = {names[id(value)] for group in optimiser.param_groups for value in group["params"]}
    assert moved == {name for name in before if not name.startswith("vision_encoder.")}
    averaged = module.averaged_state()
    assert averaged.keys() == module.model.state_dict().keys()
    for name, value in module.model.named_parameters():
        if name.startswith("vision_encoder."):
            assert value.grad is None
            assert torch.equal(value, before[name])
            assert torch.equal(averaged[name], before[name])
    assert not torch.equal(
        averaged["detr_encoder.layers.0.mlp.fc1.weight"], before["detr_encoder.layers.0.mlp.fc1.weight"]
    )
    assert len(module.average) == len(moved)


def test_params_name_what_is_frozen() -> None:
    assert resolve({"freeze": ["text"]}).freeze == ("text",)
    assert resolve({"freeze": []}).freeze == ()
    with pytest.raises(UsageError, match=r"train\.freeze: expected some of vision, text, found decoder"):
        resolve({"freeze": ["decoder"]})
