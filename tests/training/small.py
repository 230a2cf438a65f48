"""A SAM3 of the real class, with every part, small enough for a test that builds several."""

from __future__ import annotations

from typing import Any

import torch
from transformers.models.sam3.configuration_sam3 import Sam3Config

from training.sam3.model import PromptableSam3

PATCH = 14


def small_config(*, image_size: int = 56, vision: int = 64, vision_layers: int = 2) -> dict[str, Any]:
    """Sam3Config arguments; windows of half the grid, the odd ViT layers global, 64 channels a text head."""
    grid = image_size // PATCH
    common = {
        "hidden_size": 32,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "hidden_act": "relu",
        "dropout": 0.0,
    }
    return {
        "vision_config": {
            "backbone_config": {
                "model_type": "sam3_vit_model",
                "hidden_size": vision,
                "intermediate_size": 4 * vision,
                "num_hidden_layers": vision_layers,
                "num_attention_heads": vision // 32,
                "image_size": image_size,
                "patch_size": PATCH,
                "window_size": grid // 2,
                "global_attn_indexes": list(range(1, vision_layers, 2)),
                "pretrain_image_size": image_size,
                "layer_norm_eps": 1e-5,
                "rope_parameters": {"rope_type": "axial", "rope_theta": 10000.0},
            },
            "fpn_hidden_size": 32,
            "scale_factors": [4.0, 2.0, 1.0, 0.5],
            "backbone_feature_sizes": [[4 * grid, 4 * grid], [2 * grid, 2 * grid], [grid, grid]],
        },
        "text_config": {
            "model_type": "clip_text_model",
            "vocab_size": 300,
            "hidden_size": 64,
            "intermediate_size": 128,
            "projection_dim": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 1,
            "max_position_embeddings": 32,
            "hidden_act": "gelu",
        },
        "geometry_encoder_config": {**common, "num_layers": 1, "roi_size": 7},
        "detr_encoder_config": {**common, "num_layers": 1},
        "detr_decoder_config": {**common, "num_layers": 2, "num_queries": 5},
        "mask_decoder_config": {"hidden_size": 32, "num_attention_heads": 2, "num_upsampling_stages": 3},
    }


def small_model(seed: int = 0, **changes: int) -> PromptableSam3:
    """Every parameter random, also norms, biases and heads that start at zero."""
    model = PromptableSam3(Sam3Config(**small_config(**changes)))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in model.state_dict().values():
            value.normal_(0, 0.1, generator=generator)
    return model.eval()
