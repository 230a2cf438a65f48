"""torch.compile takes each stage as one graph, and its numbers are those of the plain run."""

from __future__ import annotations

import pytest
import torch
from transformers.models.sam3.configuration_sam3 import Sam3Config

from tests.training.test_activation_checkpointing import forward, inputs
from training.recipes import tiny
from training.sam3.activation_checkpointing import checkpoint_activations
from training.sam3.init import initialise
from training.sam3.model import PromptableSam3


def _model() -> PromptableSam3:
    model = PromptableSam3(Sam3Config(**tiny().sam3))
    initialise(model, 3)
    torch.nn.init.normal_(model.detr_decoder.box_head.layer3.weight, std=0.1)
    return model.train()


@pytest.fixture(autouse=True)
def _fresh() -> None:
    torch._dynamo.reset()


@pytest.mark.parametrize("with_boxes", [True, False])
def test_each_stage_is_one_graph(with_boxes: bool) -> None:
    model, given = _model(), inputs()
    if not with_boxes:
        given["boxes_cxcywh"] = given["box_labels"] = None  # type: ignore[assignment]
    images, text = model.encode_images(given["pixel_values"]), model.encode_text(given["input_ids"])
    calls = (
        (model.encode_images, (given["pixel_values"],)),
        (model.encode_text, (given["input_ids"],)),
        (model.decode, (images, text, *list(given.values())[2:])),
    )
    for stage, arguments in calls:
        explained = torch._dynamo.explain(stage)(*arguments)
        assert (explained.graph_count, explained.graph_break_count) == (1, 0), explained.break_reasons


@pytest.mark.parametrize("parts", [(), ("all",)])
def test_compiled_stages_give_the_same_numbers_and_gradients(parts: tuple[str, ...]) -> None:
    model, given = _model(), inputs()
    forward(model, given).backward()
    wanted = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
    loss = forward(model, given).item()
    model.zero_grad(set_to_none=True)
    checkpoint_activations(model, parts)
    names = set(model.state_dict())
    model.compile_stages(backend="aot_eager")
    assert set(model.state_dict()) == names
    compiled = forward(model, given)
    compiled.backward()
    assert compiled.item() == pytest.approx(loss, rel=1e-5)
    for name, gradient in wanted.items():
        found = dict(model.named_parameters())[name].grad
        torch.testing.assert_close(found, gradient, rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


def test_another_number_of_prompts_is_taken_too() -> None:
    model, given = _model(), inputs()
    model.compile_stages(backend="eager")
    images, text = model.encode_images(given["pixel_values"]), model.encode_text(given["input_ids"])
    with torch.no_grad():
        for prompts in (5, 3, 4):
            picked = [value[:prompts] for value in list(given.values())[2:]]
            found = model.decode(images, text, *picked)
            assert found.logits.shape[1] == prompts
            torch.testing.assert_close(found.masks, PromptableSam3.decode(model, images, text, *picked).masks)
