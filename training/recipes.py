"""Training recipes: plain functions that return a dataclass, and nothing cleverer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from infra.errors import UsageError
from training.sam3 import sizes

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

    # the optimiser: each rate is a factor on learning_rate, by part of the model (training/optimiser.py)
    learning_rate: float
    vision_rate: float = 1.0  # the ViT
    neck_rate: float = 1.0  # the feature pyramid on it
    text_rate: float = 1.0
    geometry_rate: float = 1.0
    encoder_rate: float = 1.0
    decoder_rate: float = 1.0
    segmentation_rate: float = 1.0
    scoring_rate: float = 1.0
    layer_decay: float = 1.0  # factor from each layer of the ViT to the one below it; 1: none
    optimiser: Literal["adamw", "muon"] = "adamw"  # muon: on weight matrices, with AdamW on the rest
    matrix_rate: float = 1.0  # factor on the learning rate of what Muon moves
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.05  # of matrices; biases, norms and tables have none
    clip_norm: float = 1.0
    most_skips_in_a_row: int = 10  # steps left out because something was not finite, before training gives up

    # the schedule (training/schedule.py)
    schedule: Literal["cosine", "inverse_sqrt"] = "cosine"
    warmup: float = 0.05  # share of the steps
    warmup_steps: int = 0  # the same in steps; 0: as `warmup` says
    final_rate: float = 0.02  # factor at the end of the cosine
    time_scale: int = 10  # steps after the warm-up at which inverse_sqrt has come down to 1 / √2
    cooldown_steps: int = 0  # at the end of inverse_sqrt, down to 0
    ema_decay: float = 0.99  # of the averaged weights that are kept; 0: no average

    # what a sample is asked (training/prompting.py)
    box_prompt_share: float = 0.2  # share of positive prompts that also carry true boxes
    box_jitter: float = 0.0  # standard deviation of a prompt box's sides, as a share of its width and height
    synonym_share: float = 0.3  # share of prompts worded by a synonym
    modality_wording: bool = False  # whether synonyms that fit one modality alone are used with its images
    negative_share: float = 0.7  # chance of a true negative prompt, where there is one; 0: none ever
    most_negatives: int = 1  # true negative prompts a sample, where something is there too
    hard_negative_share: float = 0.0  # share of them drawn from what is near to a concept that is there

    # which sample comes (training/order.py)
    temperature: float = 0.15  # datasets are drawn by (number of samples) ** temperature
    most_visits: float = (
        0  # of a sample, on average over the run; 0: no limit. A handful of pictures is soon known by heart
    )

    max_instances: int = 24  # supervised instances a prompt, largest first
    augment: dict[str, float] = field(default_factory=dict)  # knobs of training/augment.py; empty: none
    losses: dict[str, float] = field(default_factory=dict)  # overrides of LossWeights
    calibrate_presence: bool = False  # on validation, after training (training/decision.py)
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
