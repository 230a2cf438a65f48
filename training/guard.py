"""A step whose loss or gradient is not finite changes nothing: it is left out, counted and recorded.

Multiplying such a loss by zero is no way out: its backward pass multiplies zero by infinity inside the graph,
and the gradient that comes of it poisons weights, optimiser state and average at once. So the verdict falls
where gradients are final, after all-reduce and before the update, and falls alike on all ranks. Whoever has
no gradient is left alone by torch's optimisers, with its state and without weight decay; taking the
gradients away is therefore an update that does not happen.

The step still counts: learning rate and stream are functions of the step, and go on as planned.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from infra.errors import CheckFailed

KEPT_RECORDS = 200
_NAMED_PARAMETERS = 3
_log = logging.getLogger(__name__)

Record = dict[str, Any]


class NotFinite(CheckFailed):
    """Too many steps in a row had a loss or gradient that is not finite: training has diverged."""


class StepGuard:
    """Watches the losses of a step and decides whether its update happens.

    Attributes:
        skipped: steps left out so far.
        records: the latest of them: `step`, `ranks` and `sample_ids` where it came from, and `terms`, what was not
            finite (`loss` and the terms of the loss, or `gradient` and the first parameters that have one).
        last_skipped: whether the latest step was left out.
    """

    def __init__(self, most_in_a_row: int) -> None:
        self.most_in_a_row = most_in_a_row
        self.skipped = self.in_a_row = 0
        self.records: list[Record] = []
        self.last_skipped = False
        self._watched: list[tuple[Tensor, Mapping[str, Tensor], list[str]]] = []

    def watch(self, loss: Tensor, terms: Mapping[str, Tensor], sample_ids: list[str]) -> None:
        """Note a batch that goes into the coming step (several, where gradients are accumulated)."""
        self._watched.append((loss.detach(), terms, sample_ids))

    def clip_or_skip(self, named: Iterable[tuple[str, nn.Parameter]], most_norm: float, step: int) -> bool:
        """Clip the gradients to `most_norm` (0: not at all), or take them away; True where the step is left out.

        All ranks must call it; one vote is exchanged.

        Raises:
            NotFinite: the `most_in_a_row`-th step in a row was left out.
        """
        watched, self._watched = self._watched, []
        pairs = [(name, parameter) for name, parameter in named if parameter.grad is not None]
        norm = total_norm([parameter for _, parameter in pairs])
        finite = torch.isfinite(norm)
        for loss, _, _ in watched:
            finite = finite & torch.isfinite(loss).all()
        if _distributed():
            vote = finite.to(torch.int32)
            torch.distributed.all_reduce(vote, op=torch.distributed.ReduceOp.MIN)
            finite = vote > 0
        self.last_skipped = not bool(finite)
        if not self.last_skipped:
            self.in_a_row = 0
            if most_norm > 0:
                torch.nn.utils.clip_grads_with_norm_([parameter for _, parameter in pairs], most_norm, norm)
            return False
        record = _record(step, watched, pairs)
        for _, parameter in pairs:
            parameter.grad = None
        self.skipped += 1
        self.in_a_row += 1
        self.records = [*self.records, record][-KEPT_RECORDS:]
        _log.warning("step %d left out: %s not finite, samples %s", step, record["terms"], record["sample_ids"])
        if self.in_a_row >= self.most_in_a_row:
            msg = (
                f"training: expected finite losses and gradients, found {self.in_a_row} steps in a row without, "
                f"the last at step {step} in {', '.join(record['terms'])} on {', '.join(record['sample_ids'])}. Lower "
                "train.overrides.learning_rate, or look at these samples; most_skips_in_a_row sets the limit"
            )
            raise NotFinite(msg)
        return True

    def state(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return {"skipped": self.skipped, "in_a_row": self.in_a_row, "records": self.records}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave."""
        self.skipped, self.in_a_row = int(state["skipped"]), int(state["in_a_row"])
        self.records = list(state["records"])


def total_norm(parameters: list[nn.Parameter]) -> Tensor:
    """L2 norm of all gradients, a scalar tensor, as `torch.nn.utils.clip_grad_norm_` computes it."""
    norm: Tensor = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    # sharded gradients (FSDP2) give a DTensor that holds this rank's part
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm


def _distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _record(
    step: int,
    watched: list[tuple[Tensor, Mapping[str, Tensor], list[str]]],
    pairs: list[tuple[str, nn.Parameter]],
) -> Record:
    """What was not finite, and on which samples; the same on every rank."""
    mine: dict[str, Any] = {"rank": 0, "terms": [], "guilty": [], "sample_ids": []}
    for loss, parts, sample_ids in watched:
        mine["sample_ids"] += sample_ids
        if not bool(torch.isfinite(loss).all()):
            mine["guilty"] += sample_ids
            mine["terms"] += ["loss", *(name for name, value in parts.items() if not bool(torch.isfinite(value)))]
    broken = [name for name, parameter in pairs if not _finite(parameter)]
    mine["gradients"] = broken[:_NAMED_PARAMETERS]
    ranks = [mine]
    if _distributed():
        mine["rank"] = torch.distributed.get_rank()
        gathered: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(gathered, mine)
        ranks = gathered
    guilty = [rank for rank in ranks if rank["terms"]]
    found = guilty or ranks
    terms = [term for rank in guilty for term in rank["terms"]]
    if not terms:
        terms = ["gradient", *(name for rank in ranks for name in rank["gradients"])]
    return {
        "step": step,
        "ranks": [rank["rank"] for rank in found],
        "sample_ids": [sample for rank in found for sample in rank["guilty" if guilty else "sample_ids"]],
        "terms": list(dict.fromkeys(terms)),
    }


def _finite(parameter: nn.Parameter) -> bool:
    grad = parameter.grad
    assert grad is not None
    local = grad.to_local() if hasattr(grad, "to_local") else grad
    return bool(torch.isfinite(local).all())
