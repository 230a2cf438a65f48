"""The LightningModule: full fine-tuning of SAM3, with an exponential moving average of the weights."""

from __future__ import annotations

import math
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from transformers.models.sam3.configuration_sam3 import Sam3Config

from training.optimiser import make_optimiser
from training.recipes import Recipe
from training.sam3.losses import LossWeights, criterion
from training.sam3.model import PromptableSam3
from training.stream import Batch


class Sam3Training(lightning.LightningModule):
    """Trains every parameter of `model`; `average` holds the smoothed weights that are kept."""

    def __init__(self, recipe: Recipe, model: PromptableSam3 | None = None) -> None:
        super().__init__()
        self.recipe = recipe
        self.model = model if model is not None else PromptableSam3(Sam3Config(**recipe.sam3))
        self.weights = LossWeights(**recipe.losses)
        # buffers, not parameters: checkpointed with the module, seen by no optimiser and no DDP hook
        self.average = nn.ParameterDict(
            {
                _flat(name): nn.Parameter(value.detach().clone(), requires_grad=False)
                for name, value in self.model.named_parameters()
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
            names, values = zip(*self.model.named_parameters(), strict=True)
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
        for name, _ in self.model.named_parameters():
            state[name] = self.average[_flat(name)].detach().clone()
        return state


def _flat(name: str) -> str:
    # a ParameterDict takes no dots in its keys
    return name.replace(".", "/")
