"""Training recipes: plain functions that return a dataclass, and nothing cleverer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from infra.errors import UsageError

_NOT_TRAINING = {"launch.py"}  # how a run is spread over machines does not change what it computes


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a training run computes."""

    name: str
    sam3: dict[str, Any]  # keyword arguments of transformers' Sam3Config
    image_size: int  # pixels, square; images are stretched to it, as SAM3 does
    mask_size: int  # pixels, square: instance masks are supervised at this size, semantic maps at image_size
    steps: int
    global_batch: int  # images a step, over all workers
    prompts_per_image: int
    learning_rate: float
    vision_rate: float = 1.0  # factor on the learning rate
    text_rate: float = 1.0
    optimiser: Literal["adamw", "muon"] = "adamw"  # muon: on weight matrices, with AdamW on the rest
    matrix_rate: float = 1.0  # factor on the learning rate of what Muon moves
    warmup: float = 0.05  # share of the steps
    final_rate: float = 0.02  # factor at the end of the cosine
    weight_decay: float = 0.05
    clip_norm: float = 1.0
    ema_decay: float = 0.99
    box_prompt_share: float = 0.2  # share of positive prompts that also carry true boxes
    synonym_share: float = 0.3  # share of prompts worded by a synonym
    temperature: float = 0.15  # datasets are drawn by (number of samples) ** temperature
    most_visits: float = (
        0  # of a sample, on average over the run; 0: no limit. A handful of pictures is soon known by heart
    )
    stream: Literal["prepared", "shards"] = "prepared"  # shards: no prepared copy, for sizes where one would fill disks
    shuffle_samples: int = 4096  # stream "shards": samples that are shuffled with one another, over all datasets
    max_instances: int = 24  # supervised instances a prompt, largest first
    augment: dict[str, float] = field(default_factory=dict)
    losses: dict[str, float] = field(default_factory=dict)  # overrides of LossWeights
    checkpoint_every: int = 200  # steps
    seed: int = 7


def _sam3(
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


def tiny() -> Recipe:
    """A SAM3 of a few million parameters that learns from nothing in minutes on two CPU cores."""
    return Recipe(
        name="tiny",
        sam3=_sam3(image_size=96, patch=8, vision=96, vision_layers=4, width=48, text=48, queries=16, decoder_layers=2),
        image_size=96,
        mask_size=48,
        steps=1000,
        global_batch=16,
        prompts_per_image=2,
        learning_rate=1.5e-3,
        optimiser="muon",
        matrix_rate=2.0,
        most_visits=60,
        augment={"flip": 0.5, "zoom": 0.25, "rotate_degrees": 12.0, "shift": 0.06, "brightness": 0.15, "contrast": 0.2},
        losses={"classification": 5.0, "presence": 5.0, "masks_focal": 20.0, "masks_dice": 2.0},
    )


RECIPES: dict[str, Callable[[], Recipe]] = {"tiny": tiny}


def resolve(params: dict[str, Any]) -> Recipe:
    """The recipe that the `train` section of params.yaml asks for; UsageError for an unknown name."""
    name = str(params.get("recipe", "tiny"))
    if name not in RECIPES:
        msg = f"params.yaml: train.recipe: expected one of {', '.join(sorted(RECIPES))}, found {name!r}"
        raise UsageError(msg)
    recipe = RECIPES[name]()
    steps = int(params.get("steps") or 0)
    return replace(recipe, seed=int(params.get("seed", recipe.seed)), steps=steps or recipe.steps)


def code_sha256(files_below: Path | None = None) -> str:
    """SHA-256 of the code that decides what training and evaluation compute."""
    folder = files_below or Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        if path.name not in _NOT_TRAINING:
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def recipe_file(params: dict[str, Any]) -> dict[str, Any]:
    """What `recipes/train.json` of a workspace says: the resolved recipe and the digest of the code."""
    return {"recipe": asdict(resolve(params)), "code_sha256": code_sha256()}


def evaluation_recipe_file(params: dict[str, Any]) -> dict[str, Any]:
    """What `recipes/evaluate.json` of a workspace says: the `evaluate` section and the digest of the code."""
    return {"evaluate": params, "code_sha256": code_sha256()}
