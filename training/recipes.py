"""Training recipes: plain functions that return a dataclass, and nothing cleverer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from infra.errors import UsageError
from training.sam3 import sizes

# how a run is spread over machines, or measured, does not change what it computes
_NOT_TRAINING = {"launch.py", "memory_plan.py", "bench"}


FREEZABLE = {"vision": ("vision_encoder.",), "text": ("text_encoder.", "text_projection.")}
"""Parts that `freeze` names, by the beginning of their parameters' names."""


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
    max_instances: int = 24  # supervised instances a prompt, largest first
    augment: dict[str, float] = field(default_factory=dict)
    losses: dict[str, float] = field(default_factory=dict)  # overrides of LossWeights
    freeze: tuple[str, ...] = ()  # parts that are not trained: vision, text
    checkpoint_parts: tuple[str, ...] = ()  # parts that are computed twice to save memory (activation_checkpointing)
    compile: bool = False  # torch.compile of the three stages; the first steps take minutes
    checkpoint_every: int = 200  # steps
    seed: int = 7


def tiny() -> Recipe:
    """A SAM3 of a few million parameters that learns from nothing in minutes on two CPU cores."""
    return Recipe(
        name="tiny",
        sam3=sizes.tiny(),
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
    freeze = tuple(str(part) for part in params.get("freeze") or recipe.freeze)
    wrong = [part for part in freeze if part not in FREEZABLE]
    if wrong:
        msg = f"params.yaml: train.freeze: expected some of {', '.join(FREEZABLE)}, found {', '.join(wrong)}"
        raise UsageError(msg)
    return replace(recipe, seed=int(params.get("seed", recipe.seed)), steps=steps or recipe.steps, freeze=freeze)


def code_sha256(files_below: Path | None = None) -> str:
    """SHA-256 of the code that decides what training and evaluation compute."""
    folder = files_below or Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        if path.relative_to(folder).parts[0] not in _NOT_TRAINING:
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def recipe_file(params: dict[str, Any]) -> dict[str, Any]:
    """What `recipes/train.json` of a workspace says: the resolved recipe and the digest of the code."""
    return {"recipe": asdict(resolve(params)), "code_sha256": code_sha256()}


def evaluation_recipe_file(params: dict[str, Any]) -> dict[str, Any]:
    """What `recipes/evaluate.json` of a workspace says: the `evaluate` section and the digest of the code."""
    return {"evaluate": params, "code_sha256": code_sha256()}
