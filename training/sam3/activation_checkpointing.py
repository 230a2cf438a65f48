"""Activation checkpointing (Chen et al., arXiv:1604.06174): layers computed twice so that less is kept.

A checkpointed layer keeps its inputs alone and is run again in the backward pass, with the same random numbers
(dropout), so that gradients are those of a run without. `python -m training.memory_plan` says what each part saves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from torch import nn
from torch.utils._pytree import tree_flatten, tree_unflatten
from torch.utils.checkpoint import checkpoint

from infra.errors import UsageError
from training.sam3.model import PromptableSam3

PARTS: dict[str, Callable[[PromptableSam3], Iterable[nn.Module]]] = {
    "vision": lambda model: model.vision_encoder.backbone.layers,
    "text": lambda model: model.text_encoder.text_model.encoder.layers,
    "geometry": lambda model: model.geometry_encoder.layers,
    "detr_encoder": lambda model: model.detr_encoder.layers,
    "detr_decoder": lambda model: model.detr_decoder.layers,
    "mask": lambda model: [model.mask_decoder],
}
"""Parts of the model and what is recomputed as one in each: a layer, or the mask decoder as a whole."""


def parts_of(names: Iterable[str]) -> tuple[str, ...]:
    """Names of parts, in the model's order; `all` is all of them. UsageError for a name that there is not."""
    wanted = [name for name in names if name]
    wrong = [name for name in wanted if name != "all" and name not in PARTS]
    if wrong:
        msg = f"checkpoint_parts: expected some of all, {', '.join(PARTS)}, found {', '.join(wrong)}"
        raise UsageError(msg)
    return tuple(name for name in PARTS if "all" in wanted or name in wanted)


def checkpoint_activations(model: PromptableSam3, parts: Iterable[str]) -> int:
    """Recompute the layers of `parts` in training, and of no other part; return how many layers that is."""
    chosen = parts_of(parts)
    count = 0
    for name, layers_of in PARTS.items():
        for layer in layers_of(model):
            # names that transformers' GradientCheckpointingLayer reads
            setattr(layer, "_gradient_checkpointing_func", _recomputed)  # noqa: B010
            setattr(layer, "gradient_checkpointing", name in chosen)  # noqa: B010
            count += name in chosen
    return count


def _recomputed(call: partial[Any], *inputs: Any) -> Any:
    """What transformers' layers call in place of their forward: `call` binds the layer and its named arguments.

    All tensors are handed to `checkpoint` as its own arguments, for it to save them as a graph node does: what a
    closure holds would be kept alive unseen by saved-tensor hooks.
    """
    leaves, shape = tree_flatten((inputs, call.keywords))

    def run(*values: Any) -> Any:
        positional, named = tree_unflatten(list(values), shape)
        return call.func(*call.args, *positional, **named)

    return checkpoint(run, *leaves, use_reentrant=False, preserve_rng_state=True)
