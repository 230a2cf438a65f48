"""What a training step needs of memory, without having it: the real model under FakeTensorMode.

    python -m training.memory_plan --model-size full --batch 4 --prompts 4 --precision bf16 --checkpoint-parts all

Parameters and optimiser state follow from a formula; what the forward pass keeps for the backward pass, and the most
that is alive at once, are counted on the very operators that a step runs (`live_bytes.py`), whose outputs are shapes
without data. Not counted: workspaces inside of kernels, the allocator's fragments, the CUDA context.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from transformers.models.sam3.configuration_sam3 import Sam3Config

from training.live_bytes import Kept, keep_watch
from training.lora import add_adapters
from training.lora_settings import Lora, lora_of
from training.optimiser import is_matrix
from training.recipes import FREEZABLE
from training.sam3 import sizes
from training.sam3.activation_checkpointing import PARTS, checkpoint_activations, parts_of
from training.sam3.cuda_kernels import cuda_kernels
from training.sam3.model import PADDING_LABEL, Predictions, PromptableSam3
from training.sam3.terms import mask_losses, semantic_losses

GIB = 2**30
FULL_PRECISION_BYTES = 4  # parameters, gradients, optimiser state and EMA are fp32 in every precision
TOKENS = 32


@dataclass(frozen=True)
class Step:
    """What is planned for."""

    sam3: dict[str, Any]
    image_size: int  # pixels
    batch: int  # images
    prompts: int  # an image
    precision: str = "bf16"  # bf16 (autocast) or fp32
    checkpoint_parts: tuple[str, ...] = ()
    optimiser: str = "adamw"
    freeze: tuple[str, ...] = ()
    lora: Lora | None = None
    ema: bool = True
    objects: int = 4  # supervised instances a prompt
    mask_size: int = 0  # pixels; 0: the head's own
    kernels: str = "cuda"  # whose attention and normalisation kernels: cuda or cpu


@dataclass(frozen=True)
class Plan:
    """Bytes of one step on one device."""

    parameters: int  # number
    trained: int  # number
    weights: int
    gradients: int
    optimiser: int
    average: int
    activations: int  # kept for the backward pass, weights and their copies apart
    weight_copies: int  # weights in the lower precision, which autocast keeps
    peak_backward: int  # most alive at once in forward and backward, all of the above included
    peak_optimiser: int  # most alive at once in the optimiser's step

    @property
    def peak(self) -> int:
        """Most alive at once."""
        return max(self.peak_backward, self.peak_optimiser)


def plan(step: Step) -> Plan:
    """Plan a step without allocating it."""
    if step.lora is None:
        with FakeTensorMode():
            return measure(step, PromptableSam3(Sam3Config(**step.sam3)).train())
    # peft moves what it makes to the layer's device, which fake tensors do not allow: they take the place of shapes
    with torch.device("meta"):
        model = PromptableSam3(Sam3Config(**step.sam3)).train()
        add_adapters(model, step.lora, 0)
    with FakeTensorMode():
        for module in model.modules():
            for name, value in list(module._parameters.items()):
                if value is not None:
                    module._parameters[name] = nn.Parameter(torch.empty(value.shape), value.requires_grad)
            for name, held in list(module._buffers.items()):
                if held is not None:
                    module._buffers[name] = torch.empty(held.shape, dtype=held.dtype)
        return measure(step, model)


def measure(step: Step, model: PromptableSam3) -> Plan:
    """The same from a given model, on fake tensors or on real ones (that is how a plan is checked)."""
    beginnings = tuple(beginning for part in step.freeze for beginning in FREEZABLE[part])
    if step.lora is None:  # else the model came with its adapters, and all but them is frozen already
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(not (beginnings and name.startswith(beginnings)))
    checkpoint_activations(model, step.checkpoint_parts)
    trained = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
    numbers = sum(value.numel() for _, value in trained)
    moments = optimiser_numbers(trained, step.optimiser)
    weights = sum(value.numel() for value in model.parameters()) * FULL_PRECISION_BYTES
    optimiser, average = moments * FULL_PRECISION_BYTES, numbers * FULL_PRECISION_BYTES * step.ema
    model.zero_grad(set_to_none=True)
    batch = made_batch(step, model)
    with _kernels(step), keep_watch(model) as watch:
        with _precision(step), watch.keeping() as kept:
            loss = surrogate_loss(run_stages(model, batch), batch, step)
        loss.backward()  # type: ignore[no-untyped-call]
        # what is alive beside the model's own: activations and gradients
        moving = watch.peak
    gradients = sum(value.grad.numel() for _, value in trained if value.grad is not None) * FULL_PRECISION_BYTES
    model.zero_grad(set_to_none=True)
    static = weights + optimiser + average
    return Plan(
        parameters=sum(value.numel() for value in model.parameters()),
        trained=numbers,
        weights=weights,
        gradients=gradients,
        optimiser=optimiser,
        average=average,
        activations=kept.activations,
        weight_copies=kept.weight_copies,
        peak_backward=static + moving,
        # foreach AdamW and Muon hold one more copy of what they divide by, or orthogonalise
        peak_optimiser=static + gradients + numbers * FULL_PRECISION_BYTES,
    )


def optimiser_numbers(trained: list[tuple[str, nn.Parameter]], optimiser: str) -> int:
    """Numbers that the optimiser keeps: two moments a parameter for AdamW, one for what Muon moves."""
    return sum(value.numel() * (1 if optimiser == "muon" and is_matrix(name, value) else 2) for name, value in trained)


def made_batch(step: Step, model: PromptableSam3) -> dict[str, Tensor]:
    """Inputs and targets of the right shapes; every image has its own texts."""
    prompts = step.batch * step.prompts
    mask_size = step.mask_size or _head_size(step)
    ids = torch.zeros(prompts, TOKENS, dtype=torch.long)
    ids[:, :4] = 1
    return {
        "pixel_values": torch.zeros(step.batch, 3, step.image_size, step.image_size),
        "input_ids": ids,
        "image_of_prompt": torch.arange(prompts) // step.prompts,
        "text_of_prompt": torch.arange(prompts),
        "boxes_cxcywh": torch.full((prompts, 3, 4), 0.5),
        "box_labels": torch.full((prompts, 3), PADDING_LABEL),
        "masks": torch.zeros(prompts * step.objects, mask_size, mask_size),
        "semantic": torch.zeros(prompts, step.image_size, step.image_size),
    }


def _head_size(step: Step) -> int:
    backbone = step.sam3["vision_config"]["backbone_config"]
    return int(4 * (step.image_size // backbone["patch_size"]))


def run_stages(model: PromptableSam3, batch: dict[str, Tensor]) -> Predictions:
    """The three stages, as training runs them."""
    return model.decode(
        model.encode_images(batch["pixel_values"]),
        model.encode_text(batch["input_ids"]),
        batch["image_of_prompt"],
        batch["text_of_prompt"],
        batch["boxes_cxcywh"],
        batch["box_labels"],
    )


def surrogate_loss(found: Predictions, batch: dict[str, Tensor], step: Step) -> Tensor:
    """The terms that weigh in memory, on a fixed assignment: which query an object gets changes no shape."""
    objects = torch.arange(len(batch["masks"]))
    prompt = objects // max(1, step.objects)
    query = objects % found.masks.shape[1]
    masks = mask_losses(found.masks[prompt, query].float(), batch["masks"], 1.0)
    present = torch.ones(len(batch["semantic"]), dtype=torch.bool)
    semantic = semantic_losses(found.semantic.float(), batch["semantic"], present)
    small = (found.logits, found.boxes_cxcywh, found.presence)
    total: Tensor = sum((part.float().square().mean() for part in small), torch.zeros(()))
    return total + masks[0] + masks[1] + semantic[0] + semantic[1]


def saved_bytes(run: Callable[[], object], model: nn.Module) -> Kept:
    """What `run`, a forward pass, keeps for the backward pass."""
    with keep_watch(model) as watch, watch.keeping() as kept:
        result = run()
    del result
    return kept


@contextlib.contextmanager
def _precision(step: Step) -> Iterator[None]:
    with torch.autocast("cpu", torch.bfloat16, enabled=step.precision == "bf16"):
        yield


@contextlib.contextmanager
def _kernels(step: Step) -> Iterator[None]:
    if step.kernels == "cuda":
        with cuda_kernels():
            yield
    else:
        yield


def formula(step: Step, found: Plan) -> dict[str, int]:
    """What must hold by arithmetic alone, beside what was counted."""
    backbone = step.sam3["vision_config"]["backbone_config"]
    grid = step.image_size // backbone["patch_size"]
    layer_input = step.batch * grid**2 * backbone["hidden_size"] * FULL_PRECISION_BYTES
    return {
        "weights": found.parameters * FULL_PRECISION_BYTES,
        "optimiser_adamw": 2 * found.trained * FULL_PRECISION_BYTES,
        # the residual stream is fp32 under autocast
        "vision_layer_inputs": backbone["num_hidden_layers"] * layer_input,
    }


def document(step: Step) -> dict[str, Any]:
    """The plan as JSON: what was asked, bytes, and the formula's figures."""
    found = plan(step)
    asked = {name: value for name, value in asdict(step).items() if name != "sam3"}
    return {
        "asked": asked,
        "bytes": {**asdict(found), "peak": found.peak},
        "gib": {name: round(value / GIB, 2) for name, value in asdict(found).items() if name not in _NUMBERS}
        | {"peak": round(found.peak / GIB, 2)},
        "formula_bytes": formula(step, found),
        "torch": torch.__version__,
    }


_NUMBERS = ("parameters", "trained")


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m training.memory_plan", description=__doc__)
    parser.add_argument("--model-size", default="full", help="tiny, small, full or a width (multiple of 128)")
    parser.add_argument("--image-size", type=int, default=0, help="pixels; 0: the size's own")
    parser.add_argument("--batch", type=int, default=4, help="images")
    parser.add_argument("--prompts", type=int, default=4, help="prompts an image")
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--checkpoint-parts", default="", help=f"comma-separated: all, {', '.join(PARTS)}")
    parser.add_argument("--optimiser", choices=("adamw", "muon"), default="adamw")
    parser.add_argument("--freeze", default="", help=f"comma-separated: {', '.join(FREEZABLE)}")
    parser.add_argument("--lora", type=int, default=0, metavar="RANK", help="adapters in place of full fine-tuning")
    parser.add_argument("--kernels", choices=("cuda", "cpu"), default="cuda", help="whose kernels to plan with")
    given = parser.parse_args(arguments)
    sam3, image_size = sizes.named(given.model_size, given.image_size)
    step = Step(
        sam3=sam3,
        image_size=image_size,
        batch=given.batch,
        prompts=given.prompts,
        precision=given.precision,
        checkpoint_parts=parts_of(given.checkpoint_parts.split(",")),
        optimiser=given.optimiser,
        freeze=tuple(part for part in given.freeze.split(",") if part),
        lora=lora_of({"rank": given.lora}),
        kernels=given.kernels,
    )
    sys.stdout.write(json.dumps(document(step), indent=2) + "\n")


if __name__ == "__main__":
    main()
