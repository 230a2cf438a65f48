"""Floating-point operations of a training step, counted by torch on the operators of the real model."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch._subclasses import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode
from transformers.models.sam3.configuration_sam3 import Sam3Config

from training.memory_plan import run_stages
from training.module import freeze_parts
from training.recipes import Recipe
from training.sam3.cuda_kernels import cuda_kernels
from training.sam3.model import PromptableSam3
from training.stream import Batch


def step_flops(recipe: Recipe, batch: Batch) -> int:
    """FLOPs of forward and backward of a batch, each layer once: what is recomputed to save memory is no model FLOP.

    Counted on shapes without data, so that the full model can be counted on any machine, and with CUDA's attention
    kernels, since torch has no formula for the CPU's. Losses and the optimiser are left out, as is the custom.
    """
    plain = replace(recipe, checkpoint_parts=(), compile=False)
    shapes = {
        name: (tuple(value.shape), value.dtype)
        for name, value in vars(batch).items()
        if isinstance(value, torch.Tensor)
    }
    with FakeTensorMode(), cuda_kernels():
        model = PromptableSam3(Sam3Config(**plain.sam3)).train()
        freeze_parts(model, plain.freeze)
        tensors = {name: torch.zeros(shape, dtype=dtype) for name, (shape, dtype) in shapes.items()}
        with FlopCounterMode(display=False) as counter:
            found = run_stages(model, tensors)
            parts = (found.logits, found.boxes_cxcywh, found.presence, found.masks, found.semantic)
            sum(part.sum() for part in parts).backward()  # type: ignore[union-attr]
        return int(counter.get_total_flops())
