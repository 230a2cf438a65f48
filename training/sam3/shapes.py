"""The config of an official checkpoint that comes without one: read from the shapes of its tensors.

What shapes do not tell is official fact: norm epsilon 1e-5, GELU in the ViT and the text encoder, ReLU elsewhere,
dropout 0.1, rotary base 10,000, 64 channels a text head.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from infra.errors import DataError
from training.sam3.source import OFFICIAL_IMAGE_SIZE

_WINDOW, _HEAD_WIDTH = 24, 64
_GLOBAL_OF_32 = [7, 15, 23, 31]
_TRUNK, _LANGUAGE = "backbone.vision_backbone.trunk", "backbone.language_backbone.encoder"
ROTARY = re.compile(re.escape(_TRUNK) + r"\.blocks\.(\d+)\.attn\.freqs_cis")
ROTARY_BASE = 10000.0
EPSILON = 1e-5


def config_of_shapes(official: Mapping[str, Tensor], file: str) -> dict[str, Any]:
    """Sam3Config arguments of the model whose official tensors (no prefix) these are."""
    try:
        return _config(official, file)
    except (KeyError, IndexError, ValueError) as error:
        msg = f"{file}: expected an official SAM3 checkpoint, whose sizes follow from its tensors; lacks {error}"
        raise DataError(msg) from error


def _config(official: Mapping[str, Tensor], file: str) -> dict[str, Any]:
    shape = {name: tuple(value.shape) for name, value in official.items()}
    patch = shape[f"{_TRUNK}.patch_embed.proj.weight"][-1]
    width = shape[f"{_TRUNK}.pos_embed"][-1]
    blocks = _count(shape, rf"{re.escape(_TRUNK)}\.blocks\.(\d+)\.")
    positions = {int(match.group(1)): shape[name] for name in shape if (match := ROTARY.fullmatch(name))}
    if positions:
        window = math.isqrt(min(rows for rows, _ in positions.values()))
        grid = math.isqrt(max(rows for rows, _ in positions.values()))
        globally = sorted(block for block, (rows, _) in positions.items() if rows != window * window)
        head_width, image_size = 2 * positions[0][1], grid * patch
    elif blocks == 32:
        window, globally, head_width, image_size = _WINDOW, _GLOBAL_OF_32, _HEAD_WIDTH, OFFICIAL_IMAGE_SIZE
    else:
        raise DataError(_needs_config(file, "window and global layers", f"{blocks} blocks without freqs_cis"))
    grid = image_size // patch
    text_width = shape[f"{_LANGUAGE}.ln_final.weight"][0]
    if text_width % _HEAD_WIDTH:
        raise DataError(_needs_config(file, "number of text heads", f"a text width of {text_width}"))
    d_model = shape["transformer.decoder.query_embed.weight"][1]
    heads = shape["transformer.decoder.boxRPB_embed_x.layers.1.weight"][0]
    common = {"hidden_size": d_model, "num_attention_heads": heads, "hidden_act": "relu"}
    layers = {part: _count(shape, rf"transformer\.{part}\.layers\.(\d+)\.") for part in ("encoder", "decoder")}

    def forward(layer: str) -> int:
        return shape[f"{layer}.linear1.weight"][0]

    return {
        "vision_config": {
            "backbone_config": {
                "model_type": "sam3_vit_model",
                "hidden_size": width,
                "intermediate_size": shape[f"{_TRUNK}.blocks.0.mlp.fc1.weight"][0],
                "num_hidden_layers": blocks,
                "num_attention_heads": width // head_width,
                "num_channels": shape[f"{_TRUNK}.patch_embed.proj.weight"][1],
                "hidden_act": "gelu",
                "layer_norm_eps": EPSILON,
                "image_size": image_size,
                "patch_size": patch,
                "window_size": window,
                "global_attn_indexes": globally,
                "pretrain_image_size": math.isqrt(shape[f"{_TRUNK}.pos_embed"][1] - 1) * patch,
                "rope_parameters": {"rope_type": "axial", "rope_theta": ROTARY_BASE},
            },
            "fpn_hidden_size": d_model,
            "scale_factors": _scales(shape),
            "backbone_feature_sizes": [[factor * grid] * 2 for factor in (4, 2, 1)],
        },
        "text_config": {
            "model_type": "clip_text_model",
            "vocab_size": shape[f"{_LANGUAGE}.token_embedding.weight"][0],
            "hidden_size": text_width,
            "intermediate_size": shape[f"{_LANGUAGE}.transformer.resblocks.0.mlp.c_fc.weight"][0],
            "projection_dim": shape[f"{_LANGUAGE}.text_projection"][1],
            "num_hidden_layers": _count(shape, rf"{re.escape(_LANGUAGE)}\.transformer\.resblocks\.(\d+)\."),
            "num_attention_heads": text_width // _HEAD_WIDTH,
            "max_position_embeddings": shape[f"{_LANGUAGE}.positional_embedding"][0],
            "hidden_act": "gelu",
            "layer_norm_eps": EPSILON,
        },
        "geometry_encoder_config": {
            **common,
            "num_layers": _count(shape, r"geometry_encoder\.encode\.(\d+)\."),
            "intermediate_size": forward("geometry_encoder.encode.0"),
            "roi_size": shape["geometry_encoder.boxes_pool_project.weight"][-1],
        },
        "detr_encoder_config": {
            **common,
            "num_layers": layers["encoder"],
            "intermediate_size": forward("transformer.encoder.layers.0"),
        },
        "detr_decoder_config": {
            **common,
            "num_layers": layers["decoder"],
            "num_queries": shape["transformer.decoder.query_embed.weight"][0],
            "intermediate_size": forward("transformer.decoder.layers.0"),
        },
        "mask_decoder_config": {
            "hidden_size": d_model,
            "num_attention_heads": heads,
            "num_upsampling_stages": _count(shape, r"segmentation_head\.pixel_decoder\.conv_layers\.(\d+)\."),
        },
    }


def _needs_config(file: str, what: str, found: str) -> str:
    return (
        f"{file}: expected the official sizes or a config.json beside the file, found {found}, "
        f"which leaves the {what} open. Put the config.json of the model beside it"
    )


def _count(shape: Mapping[str, tuple[int, ...]], pattern: str) -> int:
    numbers = {int(match.group(1)) for name in shape if (match := re.match(pattern, name))}
    if not numbers:
        raise KeyError(pattern.replace("\\", ""))
    return max(numbers) + 1


def _scales(shape: Mapping[str, tuple[int, ...]]) -> list[float]:
    """The neck's factors, told by the transposed convolutions of its levels: two, one, none, a pooling."""
    level = "backbone.vision_backbone.convs"
    scales: list[float] = []
    for number in range(_count(shape, rf"{re.escape(level)}\.(\d+)\.")):
        if f"{level}.{number}.dconv_2x2_0.weight" in shape:
            scales.append(4.0)
        elif f"{level}.{number}.dconv_2x2.weight" in shape:
            scales.append(2.0)
        else:
            scales.append(0.5 if 1.0 in scales else 1.0)
    return scales
