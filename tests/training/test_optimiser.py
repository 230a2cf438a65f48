"""Muon and AdamW as one optimiser: what each moves, and that a checkpoint goes on where it was."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from training.optimiser import MuonAdamW, is_matrix, make_optimiser
from training.recipes import tiny


class Small(nn.Module):
    """A kernel, a matrix, a look-up table and vectors."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.kernel = nn.Conv2d(3, 8, 3)
        self.dense = nn.Linear(8, 6)
        self.query_embed = nn.Embedding(10, 8)
        self.head = nn.Linear(6, 1)

    def forward(self, image: Tensor) -> Tensor:
        features = self.kernel(image).relu().mean((2, 3)) + self.query_embed.weight.mean(0)
        return self.head(self.dense(features).tanh()).square().mean()


def _optimiser(model: Small, optimiser: str = "muon") -> torch.optim.Optimizer:
    return make_optimiser(model, replace(tiny(), optimiser=optimiser, matrix_rate=1.0))


def _run(model: Small, optimiser: torch.optim.Optimizer, first: int, steps: int) -> list[float]:
    losses = []
    for step in range(first, first + steps):
        image = torch.randn(4, 3, 9, 9, generator=torch.Generator().manual_seed(step))
        optimiser.zero_grad(set_to_none=True)
        loss = model(image)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    return losses


def test_matrices_are_weights_and_kernels_not_tables_nor_near_vectors() -> None:
    taken = {name for name, parameter in Small().named_parameters() if is_matrix(name, parameter)}
    assert taken == {"kernel.weight", "dense.weight"}


def test_a_matrix_moves_along_an_orthogonal_direction_and_the_rest_as_adamw_says() -> None:
    model, twin = Small(), Small()
    rate, decay = tiny().learning_rate, tiny().weight_decay
    before = copy.deepcopy(model.state_dict())
    generator = torch.Generator().manual_seed(1)
    for parameter, other in zip(model.parameters(), twin.parameters(), strict=True):
        parameter.grad = torch.randn(parameter.shape, generator=generator)
        other.grad = parameter.grad.clone()
    rest = {name: other for name, other in twin.named_parameters() if not is_matrix(name, other)}
    decays = {name: decay if name == "head.weight" else 0.0 for name in rest}
    groups = [{"params": [other], "weight_decay": decays[name]} for name, other in rest.items()]
    torch.optim.AdamW(groups, lr=rate, betas=tiny().betas).step()
    _optimiser(model).step()
    for name, expected in rest.items():
        torch.testing.assert_close(model.state_dict()[name], expected.detach())
    for name in ("kernel.weight", "dense.weight"):
        moved = (model.state_dict()[name] - before[name] * (1 - rate * decay)).flatten(1)
        singular = torch.linalg.svdvals(moved) / (0.2 * max(moved.shape) ** 0.5 * rate)
        assert 0.5 < float(singular.min()) <= float(singular.max()) < 1.4


@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_a_loaded_state_goes_on_as_if_never_stopped(kind: str) -> None:
    model = Small()
    optimiser = _optimiser(model, kind)
    _run(model, optimiser, 0, 3)
    again = Small()
    again.load_state_dict(copy.deepcopy(model.state_dict()))
    resumed = _optimiser(again, kind)
    resumed.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    assert _run(again, resumed, 3, 3) == _run(model, optimiser, 3, 3)


def test_a_scheduler_moves_all_groups_and_both_kinds_learn() -> None:
    model = Small()
    optimiser = _optimiser(model)
    assert isinstance(optimiser, MuonAdamW)
    still = copy.deepcopy(model.state_dict())
    for group in optimiser.param_groups:
        group["lr"] = 0.0
    _run(model, optimiser, 0, 2)
    for name, value in still.items():
        torch.testing.assert_close(model.state_dict()[name], value)
    for group in optimiser.param_groups:
        group["lr"] = 1e-2
    losses = _run(model, optimiser, 0, 40)
    assert losses[-1] < 0.5 * losses[0]


def test_every_parameter_is_in_one_group() -> None:
    model = Small()
    for kind in ("muon", "adamw"):
        listed = [parameter for group in _optimiser(model, kind).param_groups for parameter in group["params"]]
        assert sorted(map(id, listed)) == sorted(map(id, model.parameters()))
