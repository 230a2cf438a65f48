"""The optimisers of a recipe: AdamW alone, or Muon on weight matrices with AdamW on the rest.

Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon; scaled as in Liu et al., arXiv:2502.16982)
replaces a matrix's update by its nearest orthogonal matrix. In the few hundred steps of a run from nothing
it is worth several times as many steps of AdamW (docs/training.md has the figures).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from training.recipes import Recipe

BETAS = (0.9, 0.98)
MOMENTUM = 0.95
_TABLES = ("embed", "reference_points", "presence_token")
_FEWEST_ROWS = 5

Group = dict[str, Any]


def make_optimiser(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser over the parameters of `model` that are not frozen, with its rates by part of it."""
    matrices: dict[float, list[nn.Parameter]] = {}
    rest: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        factor = _rate_factor(name, recipe)
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
        return torch.optim.AdamW(groups, betas=BETAS, foreach=True)
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
    )


def is_matrix(name: str, parameter: Tensor) -> bool:
    """Whether Muon takes a parameter: kernels too (axes after the first taken together).

    Embeddings are look-up tables, and a map to one to four outputs is nearly a vector: neither is a matrix to Muon.
    """
    return parameter.ndim >= 2 and parameter.shape[0] >= _FEWEST_ROWS and not _is_table(name)


def _is_table(name: str) -> bool:
    return any(part in name for part in _TABLES)


def _rate_factor(name: str, recipe: Recipe) -> float:
    if name.startswith("vision_encoder.backbone"):
        return recipe.vision_rate
    return recipe.text_rate if name.startswith("text_") else 1.0


class MuonAdamW(torch.optim.Optimizer):
    """torch's Muon and torch's AdamW as one optimiser: Lightning, a scheduler and a checkpoint see one.

    Args:
        matrices: groups (`params`, `lr`, `weight_decay`) of parameters with two or more axes. Each is given to
            Muon as a two-axis view (rows, all else) of the same memory, since Muon takes nothing else.
        rest: groups for AdamW.
    """

    def __init__(self, matrices: list[Group], rest: list[Group]) -> None:
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
            self._inner["adamw"] = torch.optim.AdamW([dict(group) for group in rest], betas=BETAS, foreach=True)

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
