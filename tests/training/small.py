"""A SAM3 of the real class, with every part, small enough for a test that builds several."""

from __future__ import annotations

import torch
from transformers.models.sam3.configuration_sam3 import Sam3Config

from training.recipes import _sam3
from training.sam3.model import PromptableSam3


def small_config(**changes: int) -> dict:
    sizes = {"image_size": 56, "patch": 14, "vision": 64, "vision_layers": 2, "width": 32, "text": 64}
    config = _sam3(**{**sizes, "queries": 5, "decoder_layers": 2, **changes})
    config["text_config"]["vocab_size"] = 300
    config["text_config"]["num_attention_heads"] = 1  # 64 channels a head, as officially
    return config


def small_model(seed: int = 0, **changes: int) -> PromptableSam3:
    """Every parameter random, also norms, biases and heads that start at zero."""
    model = PromptableSam3(Sam3Config(**small_config(**changes)))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in model.state_dict().values():
            value.normal_(0, 0.1, generator=generator)
    return model.eval()
