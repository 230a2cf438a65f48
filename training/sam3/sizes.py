"""Sizes of SAM3: keyword arguments of transformers' `Sam3Config`, as plain functions.

`full` is the official model; `scaled` shrinks its width and keeps its depth; `compact` is SAM3's plan at a
few million parameters, for training from nothing on CPUs.
"""

from __future__ import annotations

from typing import Any

from infra.errors import UsageError

_HEAD = 64  # channels of an attention head of the official vision and text encoder
_DETR_SHARE = 4  # the official DETR width is a quarter of the vision encoder's


def compact(
    *,
    image_size: int,
    patch: int,
    vision: int,
    vision_layers: int,
    width: int,
    text: int,
    queries: int,
    decoder_layers: int,
) -> dict[str, Any]:
    """A small SAM3 with windows of half the grid in every other layer, and no dropout.

    Args:
        image_size: pixels, square.
        patch: pixels, square.
        vision: channels of the vision encoder.
        vision_layers: their number; the odd ones attend globally.
        width: channels of the DETR part; a multiple of 16.
        text: channels of the text encoder.
        queries: DETR queries.
        decoder_layers: DETR decoder layers; the encoder has one.
    """
    grid = image_size // patch
    heads = max(2, width // 16)
    common = {
        "hidden_size": width,
        "num_attention_heads": heads,
        "intermediate_size": 2 * width,
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
                "num_attention_heads": max(2, vision // 32),
                "image_size": image_size,
                "patch_size": patch,
                "window_size": grid // 2,
                "global_attn_indexes": list(range(1, vision_layers, 2)),
                "pretrain_image_size": image_size,
                "layer_norm_eps": 1e-5,
                "rope_parameters": {"rope_type": "axial", "rope_theta": 10000.0},
            },
            "fpn_hidden_size": width,
            "scale_factors": [4.0, 2.0, 1.0, 0.5],
            "backbone_feature_sizes": [[4 * grid, 4 * grid], [2 * grid, 2 * grid], [grid, grid]],
        },
        "text_config": {
            "model_type": "clip_text_model",
            "vocab_size": 49408,
            "hidden_size": text,
            "intermediate_size": 2 * text,
            "projection_dim": text,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": 32,
            "hidden_act": "gelu",
        },
        "geometry_encoder_config": {**common, "num_layers": 1, "roi_size": 7},
        "detr_encoder_config": {**common, "num_layers": 1},
        "detr_decoder_config": {**common, "num_layers": decoder_layers, "num_queries": queries},
        "mask_decoder_config": {
            "hidden_size": width,
            "num_attention_heads": heads,
            "num_upsampling_stages": 3,
            "dropout": 0.0,
        },
    }


def tiny() -> dict[str, Any]:
    """3.4 million parameters at 96 pixels."""
    return compact(image_size=96, patch=8, vision=96, vision_layers=4, width=48, text=48, queries=16, decoder_layers=2)


def small(image_size: int = 160) -> dict[str, Any]:
    """A few million parameters more than `tiny`, and vision and head in about the official proportion of cost.

    For benchmarks of speed and memory; the recipe `small` trains a smaller model, which a quarter of an hour fits.
    """
    return compact(
        image_size=image_size, patch=8, vision=192, vision_layers=8, width=64, text=64, queries=24, decoder_layers=3
    )


def full(image_size: int = 1008) -> dict[str, Any]:
    """The official model: 840.4 million parameters, 1008 pixels, as facebook/sam3 has them."""
    return scaled(1024, image_size)


def scaled(vision: int, image_size: int = 1008) -> dict[str, Any]:
    """The official model with `vision` channels in its vision and text encoder, and all its layers.

    Args:
        vision: 1024 officially; a multiple of 128, so that heads and the DETR width come out whole.
        image_size: pixels, square; a multiple of the patch of 14. The window of 24 patches and the position
            embedding of 336 pixels stay, as the official model has them at any size.

    Raises:
        UsageError: a width or size that the architecture cannot have.
    """
    if vision < 128 or vision % 128:
        msg = f"width of SAM3: expected a multiple of 128 (the official model has 1024), found {vision}"
        raise UsageError(msg)
    if image_size < 14 or image_size % 14:
        msg = f"image size of SAM3: expected a multiple of its patch of 14 pixels, found {image_size}"
        raise UsageError(msg)
    grid, width = image_size // 14, vision // _DETR_SHARE
    common = {
        "hidden_size": width,
        "num_attention_heads": 8,
        "intermediate_size": 8 * width,
        "hidden_act": "relu",
        "dropout": 0.1,
    }
    return {
        "vision_config": {
            "backbone_config": {
                "model_type": "sam3_vit_model",
                "hidden_size": vision,
                "intermediate_size": 4736 * vision // 1024,
                "num_hidden_layers": 32,
                "num_attention_heads": vision // _HEAD,
                "image_size": image_size,
                "patch_size": 14,
                "window_size": 24,
                "global_attn_indexes": [7, 15, 23, 31],
                "pretrain_image_size": 336,
                "layer_norm_eps": 1e-5,  # the official value; transformers' default is 1e-6
                "rope_parameters": {"rope_type": "axial", "rope_theta": 10000.0},
            },
            "fpn_hidden_size": width,
            "scale_factors": [4.0, 2.0, 1.0, 0.5],
            "backbone_feature_sizes": [[4 * grid, 4 * grid], [2 * grid, 2 * grid], [grid, grid]],
        },
        "text_config": {
            "model_type": "clip_text_model",
            "vocab_size": 49408,
            "hidden_size": vision,
            "intermediate_size": 4 * vision,
            "projection_dim": vision // 2,
            "num_hidden_layers": 24,
            "num_attention_heads": vision // _HEAD,
            "max_position_embeddings": 32,
            "hidden_act": "gelu",
        },
        "geometry_encoder_config": {**common, "num_layers": 3, "roi_size": 7},
        "detr_encoder_config": {**common, "num_layers": 6},
        "detr_decoder_config": {**common, "num_layers": 6, "num_queries": 200},
        "mask_decoder_config": {
            "hidden_size": width,
            "num_attention_heads": 8,
            "num_upsampling_stages": 3,
            "dropout": 0.0,
        },
    }


def named(size: str, image_size: int = 0) -> tuple[dict[str, Any], int]:
    """Size by name (`tiny`, `small`, `full`, or a width of `scaled`), and its image size in pixels.

    `image_size` 0 is the size's own. UsageError for a name or size that there is not.
    """
    if size.isdecimal():
        sam3 = scaled(int(size), image_size or 1008)
    elif size == "tiny":
        sam3 = tiny()
    elif size == "small":
        sam3 = small(image_size or 160)
    elif size == "full":
        sam3 = full(image_size or 1008)
    else:
        msg = f"model size: expected tiny, small, full or a width (a multiple of 128), found {size!r}"
        raise UsageError(msg)
    own: int = sam3["vision_config"]["backbone_config"]["image_size"]
    if image_size and own != image_size:
        msg = f"image size: the size {size!r} is made for {own} pixels, found {image_size}"
        raise UsageError(msg)
    return sam3, own
