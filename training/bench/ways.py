"""Ways of running one training step: ours, with its variants, and the plain one. All share weights and optimiser."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.sam3.configuration_sam3 import Sam3Config
from transformers.models.sam3.modeling_sam3 import Sam3Model

from training.bench.workload import moved, prompt_rounds, with_prompts
from training.module import Sam3Training
from training.recipes import Recipe
from training.sam3.boxes import xyxy_to_cxcywh
from training.sam3.losses import Counts, LossWeights, criterion
from training.sam3.model import Predictions, PromptableSam3
from training.stream import Batch

PARTS = ("data", "forward", "backward", "optimiser")


@dataclass
class Tally:
    """What some steps took."""

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    images: int = 0
    prompts: int = 0
    steps: int = 0

    @property
    def total(self) -> float:
        """Seconds of all parts."""
        return sum(self.seconds.values())


class Way:
    """Steps of training on one device, timed part by part."""

    def __init__(
        self,
        name: str,
        module: Sam3Training,
        optimiser: torch.optim.Optimizer,
        batches: Iterator[Batch],
        precision: str,
    ) -> None:
        self.name, self.module, self.optimiser, self._batches, self._precision = (
            name,
            module,
            optimiser,
            batches,
            precision,
        )
        self.device = next(module.parameters()).device

    def run(self, steps: int) -> Tally:
        """Run steps; the device's queue is waited for at the end of each part."""
        tally = Tally()
        for _ in range(steps):
            self._step(tally)
        return tally

    def _step(self, tally: Tally) -> None:
        clock = _Clock(tally, self.device)
        batch: Batch = moved(next(self._batches), self.device)
        clock.ends("data")
        self.optimiser.zero_grad(set_to_none=True)
        self._gradients(batch, clock)
        nn.utils.clip_grad_norm_(self.module.model.parameters(), self.module.recipe.clip_norm)
        self.optimiser.step()
        self._after()
        clock.ends("optimiser")
        tally.steps += 1
        tally.images += len(batch.pixel_values)
        tally.prompts += len(batch.image_of_prompt)

    def _gradients(self, batch: Batch, clock: _Clock) -> None:
        with self._autocast():
            loss = self.module.training_step(batch, 0)
        clock.ends("forward")
        assert loss is not None
        loss.backward()  # type: ignore[no-untyped-call]
        clock.ends("backward")

    def _after(self) -> None:
        self.module.on_train_batch_end(None, None, 0)  # type: ignore[arg-type]  # the average, which looks at neither

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self._precision == "bf16")


class UnpackedWay(Way):
    """Our model and loss with one prompt an image and forward: what packing alone is worth."""

    def _gradients(self, batch: Batch, clock: _Clock) -> None:
        rounds = prompt_rounds(batch.image_of_prompt)
        for prompts in rounds:
            with self._autocast():
                loss = self.module.training_step(with_prompts(batch, prompts), 0)
            assert loss is not None
            clock.ends("forward")
            (loss / len(rounds)).backward()  # type: ignore[no-untyped-call]
            clock.ends("backward")


class PlainWay(Way):
    """transformers' Sam3Model with texts alone, a forward a prompt (of each image), one optimiser step for all.

    Its loss knows the last decoder layer and one set of queries alone, since the model returns no other, and it
    keeps no average of the weights: all that spares it work that ours does.
    """

    def __init__(self, name: str, way: Way, batches: Iterator[Batch]) -> None:
        super().__init__(name, way.module, way.optimiser, batches, way._precision)
        self.model = Sam3Model(Sam3Config(**way.module.recipe.sam3)).to(self.device).train()
        share_weights(way.module.model, self.model)
        self._weights = LossWeights(**{**way.module.recipe.losses, "one_to_many": 0.0})

    def _gradients(self, batch: Batch, clock: _Clock) -> None:
        rounds = prompt_rounds(batch.image_of_prompt)
        for prompts in rounds:
            part = with_prompts(batch, prompts)
            with self._autocast():
                loss = self._loss(part) / len(rounds)
            clock.ends("forward")
            loss.backward()  # type: ignore[no-untyped-call]
            clock.ends("backward")

    def _loss(self, batch: Batch) -> Tensor:
        found = self.model(
            pixel_values=batch.pixel_values,
            input_ids=batch.input_ids,
            attention_mask=(batch.input_ids != 0).long(),
        )
        predictions = Predictions(
            logits=found.pred_logits.unsqueeze(0),
            boxes_cxcywh=xyxy_to_cxcywh(found.pred_boxes).unsqueeze(0),
            presence=found.presence_logits.squeeze(-1).unsqueeze(0),
            masks=found.pred_masks,
            semantic=found.semantic_seg.squeeze(1),
        )
        return criterion(predictions, batch.targets, self._weights, Counts.of(batch.targets))[0]

    def _after(self) -> None:
        pass


def share_weights(source: nn.Module, target: nn.Module) -> None:
    """Put the very parameters of `source` into `target`, so that a second model costs no second copy."""
    target.load_state_dict(source.state_dict(keep_vars=True), assign=True, strict=True)


def variant(name: str, way: Way, recipe: Recipe, batches: Iterator[Batch], kind: type[Way] = Way) -> Way:
    """Our way with another recipe (`checkpoint_parts`, `compile`) on the weights, average and optimiser of `way`."""
    model = PromptableSam3(Sam3Config(**recipe.sam3)).to(way.device)
    share_weights(way.module.model, model)
    # made without compile: the average is taken over, and what is compiled is compiled when it is first called
    module = Sam3Training(replace(recipe, compile=False), model)
    module.average = way.module.average
    if recipe.compile:
        model.compile_stages()
    return kind(name, module.train(), way.optimiser, batches, way._precision)


class _Clock:
    def __init__(self, tally: Tally, device: torch.device) -> None:
        self._tally, self._device = tally, device
        self._last = time.perf_counter()

    def ends(self, part: str) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        self._tally.seconds[part] += now - self._last
        self._last = now
