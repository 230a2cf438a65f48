"""The LightningModule: fine-tuning of SAM3, with an exponential moving average of the weights that are trained."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from transformers.models.sam3.configuration_sam3 import Sam3Config

from training.guard import StepGuard
from training.lora import add_adapters, merged
from training.optimiser import make_optimiser
from training.recipes import FREEZABLE, Recipe
from training.sam3.activation_checkpointing import checkpoint_activations
from training.sam3.losses import Counts, LossWeights, criterion
from training.sam3.model import PromptableSam3
from training.schedule import rate_of
from training.stream import Batch


class Sam3Training(lightning.LightningModule):
    """Trains `model` but for the parts that the recipe freezes; `average` holds the smoothed weights that are kept.

    With `ema_decay` 0 there is no average: the weights themselves are kept.
    """

    def __init__(self, recipe: Recipe, model: PromptableSam3 | None = None) -> None:
        super().__init__()
        self.recipe = recipe
        self.model = model if model is not None else PromptableSam3(Sam3Config(**recipe.sam3))
        freeze_parts(self.model, recipe.freeze)
        if recipe.lora is not None:
            add_adapters(self.model, recipe.lora, recipe.seed)
        checkpoint_activations(self.model, recipe.checkpoint_parts)
        if recipe.compile:
            self.model.compile_stages()
        self.weights = LossWeights(**recipe.losses)
        # parameters that no optimiser and no DDP hook sees: checkpointed with the module
        self.average = nn.ParameterDict(
            {
                _flat(name): nn.Parameter(value.detach().clone(), requires_grad=False)
                for name, value in trained_parameters(self.model)
                if recipe.ema_decay > 0
            }
        )
        self.guard = StepGuard(recipe.most_skips_in_a_row)
        self._latest: dict[str, Tensor] = {}
        self._averaged_step = 0

    @property
    def skipped(self) -> int:
        """Steps left out because something was not finite."""
        return self.guard.skipped

    @property
    def terms(self) -> dict[str, float]:
        """The latest loss and its terms, of the whole step; reading waits for the device."""
        return {name: float(value) for name, value in self._latest.items()}

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Loss of one batch; `configure_gradient_clipping` sees to it that only finite ones count."""
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
        # matching and losses in fp32 whatever the rest is computed in
        with torch.autocast(batch.pixel_values.device.type, enabled=False):
            loss, terms = criterion(predictions, batch.targets, self.weights, Counts.of(batch.targets).over_ranks())
        self.guard.watch(loss, terms, batch.sample_ids)
        self._latest = _over_ranks({"loss": loss.detach(), **terms})
        return loss

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by norm, or take the gradients of a step away that is not finite."""
        if gradient_clip_algorithm not in (None, "norm"):
            msg = f"gradients are clipped by norm, found gradient_clip_algorithm={gradient_clip_algorithm!r}"
            raise ValueError(msg)
        names = {id(parameter): name for name, parameter in self.model.named_parameters()}
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self.guard.clip_or_skip(
            ((names.get(id(parameter), "?"), parameter) for parameter in parameters),
            float(gradient_clip_val or 0.0),
            self.global_step,
        )

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_index: int) -> None:
        """Move the average towards the new weights; early on it follows closely."""
        if not self.average or self.global_step == self._averaged_step:
            return
        self._averaged_step = self.global_step
        if self.guard.last_skipped:
            return
        decay = min(self.recipe.ema_decay, (1 + self.global_step) / (10 + self.global_step))
        with torch.no_grad():
            names, values = zip(*trained_parameters(self.model), strict=True)
            kept = [self.average[_flat(name)] for name in names]
            torch._foreach_lerp_(kept, list(values), 1 - decay)

    def configure_optimizers(self) -> dict[str, Any]:
        """The recipe's optimiser and schedule, by the step."""
        optimizer = make_optimiser(self.model, self.recipe)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, rate_of(self.recipe))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what was left out, so that a resumed run still knows."""
        checkpoint["guard"] = self.guard.state()
        if self.recipe.lora is not None:
            # the base is what the run starts from, each time it does: gigabytes beside megabytes of adapters
            for name in self._base_names():
                checkpoint["state_dict"].pop(name, None)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take it back; a checkpoint of before has nothing of it."""
        if "guard" in checkpoint:
            self.guard.restore(checkpoint["guard"])
        if self.recipe.lora is not None:
            here = self.state_dict()
            checkpoint["state_dict"].update({name: here[name] for name in self._base_names()})

    def _base_names(self) -> list[str]:
        return [f"model.{name}" for name, value in self.model.named_parameters() if not value.requires_grad]

    def averaged_state(self) -> dict[str, Tensor]:
        """State dict of a plain model with the averaged weights in it; adapters are merged."""
        state = self.kept_state()
        return merged(state, self.recipe.lora) if self.recipe.lora is not None else state

    def kept_state(self) -> dict[str, Tensor]:
        """State dict of `model` as it is trained, adapters and all, with the averaged weights in it."""
        state = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        if self.average:
            for name, _ in trained_parameters(self.model):
                state[name] = self.average[_flat(name)].detach().clone()
        return state


def _over_ranks(terms: dict[str, Tensor]) -> dict[str, Tensor]:
    """Means over the ranks, which `Counts` makes the step's figures; rank 0's would tell of its own samples alone."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return terms
    values = torch.stack([value.float() for value in terms.values()])
    torch.distributed.all_reduce(values)
    return dict(zip(terms, (values / torch.distributed.get_world_size()).unbind(), strict=True))


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
