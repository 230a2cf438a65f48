"""The optimisers of a recipe: AdamW alone, or Muon on weight matrices with AdamW on the rest.

Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon; scaled as in Liu et al., arXiv:2502.16982)
replaces a matrix's update by its nearest orthogonal matrix. In the few hundred steps of a run from nothing
it is worth several times as many steps of AdamW (docs/training.md has the figures).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from training.recipes import Recipe

MOMENTUM = 0.95
_TABLES = ("embed", "reference_points", "presence_token")
_FEWEST_ROWS = 5
_ADAPTER = ".lora_"  # in the names of peft's factors
_BACKBONE = "vision_encoder.backbone."
_LAYER = re.compile(r"vision_encoder\.backbone\.layers\.(\d+)\.")
_STEM = ("vision_encoder.backbone.embeddings.", "vision_encoder.backbone.layer_norm.")
_PARTS = {
    _BACKBONE: "vision",
    "vision_encoder.neck.": "neck",
    "text_": "text",
    "geometry_encoder.": "geometry",
    "detr_encoder.": "encoder",
    "mask_decoder.": "segmentation",
    "dot_product_scoring.": "scoring",
}

Group = dict[str, Any]


def make_optimiser(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser over the parameters of `model` that are not frozen, with its rates by part and depth."""
    matrices: dict[float, list[nn.Parameter]] = {}
    rest: dict[tuple[float, float], list[nn.Parameter]] = {}
    layers = vision_layers(model)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        factor = rate_factor(name, recipe, layers)
        if recipe.optimiser == "muon" and is_matrix(name, parameter):
            matrices.setdefault(factor, []).append(parameter)
        else:
            decay = recipe.weight_decay if parameter.ndim >= 2 and not _is_table(name) else 0.0
            rest.setdefault((factor, decay), []).append(parameter)
    groups = [
        {"params": part, "lr": recipe.learning_rate * factor, "weight_decay": decay}
        for (factor, decay), part in rest.items()
    ]
    if not matrices:
        return torch.optim.AdamW(groups, betas=recipe.betas, foreach=True)
    return MuonAdamW(
        [
            {
                "params": part,
                "lr": recipe.learning_rate * factor * recipe.matrix_rate,
                "weight_decay": recipe.weight_decay,
            }
            for factor, part in matrices.items()
        ],
        groups,
        recipe.betas,
    )


def is_matrix(name: str, parameter: Tensor) -> bool:
    """Whether Muon takes a parameter: kernels too (axes after the first taken together).

    Embeddings are look-up tables, and a map to one to four outputs is nearly a vector: neither is a matrix to Muon.
    Nor is a factor of an adapter: what moves the layer is the product of two, and each alone has no scale of its own.
    """
    return parameter.ndim >= 2 and parameter.shape[0] >= _FEWEST_ROWS and not _is_table(name) and _ADAPTER not in name


def _is_table(name: str) -> bool:
    return any(part in name for part in _TABLES)


def part_of(name: str) -> str:
    """The part of SAM3 that a parameter is of, by its name: what a recipe gives learning rates to."""
    for prefix, part in _PARTS.items():
        if name.startswith(prefix):
            return part
    return "decoder"


def vision_layers(model: nn.Module) -> int:
    """Number of transformer layers of the vision encoder; 0 for a module that has none."""
    numbers = {int(found[1]) for name, _ in model.named_parameters() if (found := _LAYER.match(name))}
    return max(numbers) + 1 if numbers else 0


def vision_depth(name: str, layers: int) -> int:
    """Where a parameter of the vision backbone stands: 0 embeddings, 1 to `layers` its layers.

    Raises:
        ValueError: a parameter that is neither. One that no rule finds would keep the full rate without a word, which
            is how layer-wise decay by name is usually lost.
    """
    if found := _LAYER.match(name):
        return int(found[1]) + 1
    if name.startswith(_STEM):
        return 0
    msg = f"layer-wise decay: {name} is neither an embedding nor in one of the {layers} layers of the vision encoder"
    raise ValueError(msg)


def rate_factor(name: str, recipe: Recipe, layers: int) -> float:
    """Factor on the recipe's learning rate for a parameter: of its part, and of its depth in the vision backbone.

    Layer-wise decay as in BEiT (Bao et al., arXiv:2106.08254): `layer_decay` to the power of the layers that lie
    between a parameter and the backbone's output, plus one. The neck is no layer of it.
    """
    factor: float = getattr(recipe, f"{part_of(name)}_rate", 1.0)
    if recipe.lora is not None and _ADAPTER in name:
        factor *= recipe.lora.rate
    if recipe.layer_decay != 1.0 and name.startswith(_BACKBONE):
        factor *= recipe.layer_decay ** (layers + 1 - vision_depth(name, layers))
    return factor


class MuonAdamW(torch.optim.Optimizer):
    """torch's Muon and torch's AdamW as one optimiser: Lightning, a scheduler and a checkpoint see one.

    Args:
        matrices: groups (`params`, `lr`, `weight_decay`) of parameters with two or more axes. Each is given to
            Muon as a two-axis view (rows, all else) of the same memory, since Muon takes nothing else.
        rest: groups for AdamW.
        betas: decay of AdamW's two moments.
    """

    def __init__(self, matrices: list[Group], rest: list[Group], betas: tuple[float, float]) -> None:
        super().__init__([*matrices, *rest], {})
        self._viewed = [
            [(parameter, nn.Parameter(parameter.detach().view(parameter.shape[0], -1))) for parameter in part["params"]]
            for part in self.param_groups[: len(matrices)]
        ]
        views = [
            {**group, "params": [view for _, view in pairs]}
            for group, pairs in zip(matrices, self._viewed, strict=True)
        ]
        self._inner: dict[str, torch.optim.Optimizer] = {
            # match_rms_adamw: updates of the size that AdamW's have, so that one learning rate serves both
            "muon": torch.optim.Muon(views, momentum=MOMENTUM, adjust_lr_fn="match_rms_adamw"),
        }
        if rest:
            self._inner["adamw"] = torch.optim.AdamW([dict(group) for group in rest], betas=betas, foreach=True)

    def _paired_groups(self) -> Iterator[tuple[Group, Group]]:
        inner = [group for optimiser in self._inner.values() for group in optimiser.param_groups]
        return zip(self.param_groups, inner, strict=True)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters that have a gradient, at the learning rates of `param_groups`."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for outer, inner in self._paired_groups():
            inner["lr"] = outer["lr"]
        for pairs in self._viewed:
            for parameter, view in pairs:
                view.grad = None if parameter.grad is None else parameter.grad.reshape(view.shape)
        for optimiser in self._inner.values():
            optimiser.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Own groups (with their learning rates), and the state of both inner optimisers."""
        own = super().state_dict()
        return {**own, "inner": {name: optimiser.state_dict() for name, optimiser in self._inner.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what `state_dict` gave; KeyError or ValueError where it belongs to other groups."""
        inner = state_dict["inner"]
        super().load_state_dict({name: value for name, value in state_dict.items() if name != "inner"})
        for name, optimiser in self._inner.items():
            optimiser.load_state_dict(inner[name])
