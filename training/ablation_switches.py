"""The changes of a recipe that `training.ablation` tries, one at a time."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from training.recipes import Recipe


@dataclass(frozen=True)
class Switch:
    """One change of the base recipe."""

    name: str
    words: str
    fields: dict[str, Any] = field(default_factory=dict)
    losses: dict[str, float] = field(default_factory=dict)  # changed in the base's own
    augment: dict[str, float] = field(default_factory=dict)

    def applied(self, base: Recipe) -> Recipe:
        """The base recipe with the change."""
        recipe = replace(base, **self.fields)
        if self.losses:
            recipe = replace(recipe, losses={**base.losses, **self.losses})
        if self.augment:
            recipe = replace(recipe, augment={**recipe.augment, **self.augment})
        return recipe


BASE = Switch("base", "the base as it is")
SWITCHES = (
    Switch("no-masks", "no losses on instance masks", losses={"masks_focal": 0.0, "masks_dice": 0.0}),
    Switch("no-semantic", "no losses on the semantic map", losses={"semantic_focal": 0.0, "semantic_dice": 0.0}),
    Switch("no-negatives", "no prompts for what is absent", {"negative_share": 0.0}),
    Switch("hard-negatives", "half of the negatives near to what is there", {"hard_negative_share": 0.5}),
    Switch("two-negatives", "3 prompts a sample, up to 2 negatives", {"prompts_per_image": 3, "most_negatives": 2}),
    Switch("no-synonyms", "the canonical text alone", {"synonym_share": 0.0}),
    Switch("modality-wording", "and texts that fit one modality alone", {"modality_wording": True}),
    Switch("by-size", "datasets mixed by size (temperature 1)", {"temperature": 1.0, "most_visits": 0.0}),
    Switch("alike", "datasets mixed alike (temperature 0)", {"temperature": 0.0}),
    Switch("no-average", "no average of the weights", {"ema_decay": 0.0}),
    Switch("layer-decay", "layer-wise decay 0.85 of the vision encoder", {"layer_decay": 0.85}),
    Switch(
        "inverse-sqrt",
        "inverse square root, 30 steps of cool-down",
        {"schedule": "inverse_sqrt", "time_scale": 100, "cooldown_steps": 30},
    ),
    Switch("adamw", "AdamW alone instead of Muon", {"optimiser": "adamw"}),
    Switch("no-boxes", "no box prompts in training", {"box_prompt_share": 0.0}),
    Switch("box-jitter", "box prompts jittered by a tenth", {"box_jitter": 0.1}),
    Switch("no-augmentation", "no augmentation at all", {"augment": {}}),
    Switch("elastic", "with elastic deformation", augment={"elastic": 0.015}),
    Switch(
        "scanner",
        "with gamma, noise, blur and low resolution",
        augment={"gamma": 0.2, "noise": 0.04, "blur": 0.7, "low_resolution": 0.4},
    ),
    Switch("ct-window", "grey values of CT left as they are", augment={"ct_jitter": 0.0}),
)
