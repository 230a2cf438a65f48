"""The LightningModule: fine-tuning of SAM3, with an exponential moving average of the weights that are trained."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from transformers.models.sam3.configuration_sam3 import Sam3Config

from training.optimiser import make_optimiser
from training.recipes import FREEZABLE, Recipe
from training.sam3.activation_checkpointing import checkpoint_activations
from training.sam3.losses import LossWeights, criterion
from training.sam3.model import PromptableSam3
from training.stream import Batch


class Sam3Training(lightning.LightningModule):
    """Trains `model` but for the parts that the recipe freezes; `average` holds the smoothed weights that are kept."""

    def __init__(self, recipe: Recipe, model: PromptableSam3 | None = None) -> None:
        super().__init__()
        self.recipe = recipe
        self.model = model if model is not None else PromptableSam3(Sam3Config(**recipe.sam3))
        freeze_parts(self.model, recipe.freeze)
        checkpoint_activations(self.model, recipe.checkpoint_parts)
        if recipe.compile:
            self.model.compile_stages()
        self.weights = LossWeights(**recipe.losses)
        # buffers, not parameters: checkpointed with the module, seen by no optimiser and no DDP hook
        self.average = nn.ParameterDict(
            {
                _flat(name): nn.Parameter(value.detach().clone(), requires_grad=False)
                for name, value in trained_parameters(self.model)
            }
        )
        self.skipped = 0
        self.terms: dict[str, float] = {}

    def training_step(self, batch: Batch, batch_index: int) -> Tensor | None:
        """Loss of one batch; a batch whose loss is not finite is skipped and counted."""
        images = self.model.encode_images(batch.pixel_values)
        text = self.model.encode_text(batch.input_ids)
        predictions = self.model.decode(
            images,
            text,
            batch.image_of_prompt,
            batch.text_of_prompt,
            batch.boxes_cxcywh,
            batch.box_labels,
            one_to_many=self.weights.one_to_many > 0,
        )
        loss, terms = criterion(predictions, batch.targets, self.weights, self._normaliser(batch))
        finite = torch.isfinite(loss)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            # all ranks must agree, or the next all-reduce waits for ever
            vote = finite.to(torch.int32)
            torch.distributed.all_reduce(vote, op=torch.distributed.ReduceOp.MIN)
            finite = vote > 0
        if not bool(finite):
            self.skipped += 1
            loss = torch.nan_to_num(loss * 0.0, nan=0.0)
        self.terms = {"loss": float(loss.detach()), **{name: float(value) for name, value in terms.items()}}
        return loss

    def _normaliser(self, batch: Batch) -> Tensor:
        """Objects per rank, averaged over the ranks, at least 1 (the official global normalisation)."""
        count = torch.tensor(float(len(batch.targets.prompt)), device=batch.pixel_values.device)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(count)
            count = count / torch.distributed.get_world_size()
        return count.clamp(min=1.0)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_index: int) -> None:
        """Move the average towards the new weights; early on it follows closely."""
        decay = min(self.recipe.ema_decay, (1 + self.global_step) / (10 + self.global_step))
        with torch.no_grad():
            names, values = zip(*trained_parameters(self.model), strict=True)
            kept = [self.average[_flat(name)] for name in names]
            torch._foreach_lerp_(kept, list(values), 1 - decay)

    def configure_optimizers(self) -> dict[str, Any]:
        """The recipe's optimiser, with warm-up and cosine by the step."""
        recipe = self.recipe
        optimizer = make_optimiser(self.model, recipe)
        warmup = max(1, round(recipe.warmup * recipe.steps))

        def rate(step: int) -> float:
            if step < warmup:
                return (step + 1) / warmup
            done = min(1.0, (step - warmup) / max(1, recipe.steps - warmup))
            return recipe.final_rate + (1 - recipe.final_rate) * 0.5 * (1 + math.cos(math.pi * done))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def averaged_state(self) -> dict[str, Tensor]:
        """State dict of `model` with the averaged weights in it."""
        state = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        for name, _ in trained_parameters(self.model):
            state[name] = self.average[_flat(name)].detach().clone()
        return state


def freeze_parts(model: PromptableSam3, parts: Iterable[str]) -> None:
    """Train no parameter of the named parts (`recipes.FREEZABLE`): they cost no gradient and no optimiser state."""
    beginnings = tuple(beginning for part in parts for beginning in FREEZABLE[part])
    for name, parameter in model.named_parameters():
        if name.startswith(beginnings):
            parameter.requires_grad_(False)


def trained_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Names and values of the parameters that are not frozen."""
    return ((name, value) for name, value in model.named_parameters() if value.requires_grad)


def _flat(name: str) -> str:
    # a ParameterDict takes no dots in its keys
    return name.replace(".", "/")
