"""SAM3's fine-tuning criterion: the terms of `terms.py`, weighted and summed over decoder layers, in fp32."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from training.sam3.boxes import cxcywh_to_xyxy, iou_and_giou
from training.sam3.matcher import match, match_many
from training.sam3.model import OneToMany, Predictions
from training.sam3.terms import box_losses, classification_loss, mask_losses, presence_loss, semantic_losses

_EPSILON = 1e-6
Pairs = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class LossWeights:
    """Weight of each term; the defaults are the official fine-tuning recipe's, without its one-to-many branch."""

    boxes_l1: float = 5.0
    boxes_giou: float = 2.0
    classification: float = 20.0
    presence: float = 20.0
    masks_focal: float = 200.0
    masks_dice: float = 10.0
    semantic_focal: float = 20.0
    semantic_dice: float = 30.0
    one_to_many: float = 0.0  # of the branch as a whole, officially 2; 0: no branch, and no second set of queries
    padded_queries: float = 0  # classification is divided as if there were so many queries, officially 200
    scale_by_prompts: float = 0  # the sum is multiplied by the step's number of prompts to this power, officially 0.5


@dataclass
class Targets:
    """Truth for a pack of prompts."""

    boxes_cxcywh: Tensor  # (objects, 4), normalised
    prompt: Tensor  # (objects,) index of the prompt an object answers
    masks: Tensor  # (objects, height, width), 0..1
    semantic: Tensor  # (prompts, height, width), 0..1: union of a prompt's objects
    valid_mask: Tensor | None = None  # (objects,) bool: False where an object has a box and no usable mask

    @property
    def has_object(self) -> Tensor:
        """(prompts,) bool: whether anything answers a prompt."""
        found = torch.zeros(len(self.semantic), dtype=torch.bool, device=self.semantic.device)
        found[self.prompt] = True
        return found


@dataclass(frozen=True)
class Counts:
    """What the sums of the terms are divided by: numbers of a whole step, fp32 scalars on the device.

    Every rank adds up its own prompts and divides by a rank's share of what all ranks have, so that the mean of the
    ranks' gradients, which DDP and FSDP2 take, is the gradient of the step's batch however it is divided. A mean over
    a rank's own prompts, as officially, would weigh a prompt by how many others its rank happens to have.
    """

    objects: Tensor
    prompts: Tensor
    present: Tensor  # prompts that have an object
    ranks: int = 1

    @classmethod
    def of(cls, targets: Targets) -> Counts:
        """Of one rank that is alone."""
        has_object = targets.has_object
        objects, prompts = (float(len(each)) for each in (targets.prompt, has_object))
        return cls(
            has_object.new_tensor(objects, dtype=torch.float32),
            has_object.new_tensor(prompts, dtype=torch.float32),
            has_object.sum().float(),
        )

    def over_ranks(self) -> Counts:
        """The sums over all ranks, who must all ask; itself where there are no others."""
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return self
        numbers = torch.stack([self.objects, self.prompts, self.present])
        torch.distributed.all_reduce(numbers)
        objects, prompts, present = numbers.unbind()
        return Counts(objects, prompts, present, torch.distributed.get_world_size())

    @property
    def shares(self) -> tuple[Tensor, Tensor, Tensor]:
        """A rank's share of the objects (of at least 1), of the prompts, and of the prompts that have an object."""
        return (
            self.objects.clamp(min=1.0) / self.ranks,
            self.prompts / self.ranks,
            (self.present + _EPSILON) / self.ranks,
        )


def criterion(
    predictions: Predictions, targets: Targets, weights: LossWeights, counts: Counts
) -> tuple[Tensor, dict[str, Tensor]]:
    """Weighted sum over all decoder layers, and the last layer's unweighted terms for the log.

    Of several ranks each has a part of the step; the mean of their results is the step's (`Counts`).

    With `weights.one_to_many` the second set of queries is matched one to many in the last layer and one to one in
    the earlier ones, as officially; it has boxes, classification and masks, but no presence of its own.
    """
    has_object = targets.has_object
    normaliser, prompts, present = counts.shares
    total = predictions.logits.new_zeros((), dtype=torch.float32)
    last = predictions.logits.shape[0] - 1
    for layer in range(last + 1):
        pairs, terms = _query_terms(predictions, layer, targets, has_object, weights, counts, match)
        terms["presence"] = presence_loss(predictions.presence[layer].float(), has_object, prompts)
        total = total + _weighted(terms, weights)
    # a term of weight 0 is not computed: at full size the maps are most of a step's loss memory
    of_masks = _mask_terms(predictions.masks, pairs, targets, normaliser, weights)
    if weights.semantic_focal or weights.semantic_dice:
        focal, dice = semantic_losses(predictions.semantic.float(), targets.semantic, has_object, present)
        of_masks |= {"semantic_focal": focal, "semantic_dice": dice}
    total = total + _weighted(of_masks, weights)
    terms |= of_masks
    if weights.one_to_many > 0:
        total = total + weights.one_to_many * _second_set(predictions, targets, has_object, weights, counts, terms)
    if weights.scale_by_prompts:
        total = total * counts.prompts**weights.scale_by_prompts
    return total, {name: value.detach() for name, value in terms.items()}


def _second_set(
    predictions: Predictions,
    targets: Targets,
    has_object: Tensor,
    weights: LossWeights,
    counts: Counts,
    terms: dict[str, Tensor],
) -> Tensor:
    if predictions.one_to_many is None:
        msg = "the one-to-many loss needs predictions of the second set of queries: decode(…, one_to_many=True)"
        raise ValueError(msg)
    second = predictions.one_to_many
    total = predictions.logits.new_zeros((), dtype=torch.float32)
    last = second.logits.shape[0] - 1
    for layer in range(last + 1):
        matcher = match_many if layer == last else match
        pairs, found = _query_terms(second, layer, targets, has_object, weights, counts, matcher)
        total = total + _weighted(found, weights)
    found |= (of_masks := _mask_terms(second.masks, pairs, targets, counts.shares[0], weights))
    terms |= {f"{name}_one_to_many": value for name, value in found.items()}
    return total + _weighted(of_masks, weights)


def _weighted(terms: dict[str, Tensor], weights: LossWeights) -> Tensor | float:
    if not terms:
        return 0.0
    first, *others = (getattr(weights, name) * value for name, value in terms.items())
    total: Tensor = first
    for part in others:
        total = total + part
    return total


def _query_terms(
    predictions: Predictions | OneToMany,
    layer: int,
    targets: Targets,
    has_object: Tensor,
    weights: LossWeights,
    counts: Counts,
    matcher: Callable[[Tensor, Tensor, Tensor, Tensor], Pairs],
) -> tuple[Pairs, dict[str, Tensor]]:
    """Pairs of one layer's queries, and their box and classification terms by the name of their weight."""
    logits = predictions.logits[layer].float()
    boxes = predictions.boxes_cxcywh[layer].float()
    prompt, query, which = matcher(logits, boxes, targets.boxes_cxcywh, targets.prompt)
    predicted, wanted = boxes[prompt, query], targets.boxes_cxcywh[which]
    normaliser, prompts, _ = counts.shares
    l1, giou = box_losses(predicted, wanted, normaliser)
    iou, _ = iou_and_giou(cxcywh_to_xyxy(predicted.detach()), cxcywh_to_xyxy(wanted))
    classification = classification_loss(
        logits, (prompt, query), iou, trained=has_object, padded_queries=weights.padded_queries, prompts=prompts
    )
    return (prompt, query, which), {"boxes_l1": l1, "boxes_giou": giou, "classification": classification}


def _mask_terms(
    masks: Tensor, pairs: Pairs, targets: Targets, normaliser: Tensor, weights: LossWeights
) -> dict[str, Tensor]:
    if not (weights.masks_focal or weights.masks_dice):
        return {}
    prompt, query, which = pairs
    valid = None if targets.valid_mask is None else targets.valid_mask[which]
    focal, dice = mask_losses(masks[prompt, query].float(), targets.masks[which], normaliser, valid)
    return {"masks_focal": focal, "masks_dice": dice}
