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
    scale_by_prompts: float = 0  # the sum is multiplied by the number of prompts to this power, officially 0.5


@dataclass
class Targets:
    """Truth for a pack of prompts."""

    boxes_cxcywh: Tensor  # (objects, 4), normalised
    prompt: Tensor  # (objects,) index of the prompt an object answers
    masks: Tensor  # (objects, height, width), 0..1
    semantic: Tensor  # (prompts, height, width), 0..1: union of a prompt's objects
    valid_mask: Tensor | None = None  # (objects,) bool: False where an object has a box and no usable mask


def criterion(
    predictions: Predictions, targets: Targets, weights: LossWeights, normaliser: Tensor | float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Weighted sum over all decoder layers, and the last layer's unweighted terms for the log.

    With `weights.one_to_many` the second set of queries is matched one to many in the last layer and one to one in
    the earlier ones, as officially; it has boxes, classification and masks, but no presence of its own.
    """
    prompts = predictions.logits.shape[1]
    has_object = torch.zeros(prompts, dtype=torch.bool, device=predictions.logits.device)
    has_object[targets.prompt] = True
    total = predictions.logits.new_zeros((), dtype=torch.float32)
    last = predictions.logits.shape[0] - 1
    for layer in range(last + 1):
        pairs, terms = _query_terms(predictions, layer, targets, has_object, weights, normaliser, match)
        terms["presence"] = presence_loss(predictions.presence[layer].float(), has_object)
        total = total + _weighted(terms, weights)
    # a term of weight 0 is not computed: at full size the maps are most of a step's loss memory
    of_masks = _mask_terms(predictions.masks, pairs, targets, normaliser, weights)
    if weights.semantic_focal or weights.semantic_dice:
        focal, dice = semantic_losses(predictions.semantic.float(), targets.semantic, has_object)
        of_masks |= {"semantic_focal": focal, "semantic_dice": dice}
    total = total + _weighted(of_masks, weights)
    terms |= of_masks
    if weights.one_to_many > 0:
        total = total + weights.one_to_many * _second_set(predictions, targets, has_object, weights, normaliser, terms)
    if weights.scale_by_prompts:
        total = total * prompts**weights.scale_by_prompts
    return total, {name: value.detach() for name, value in terms.items()}


def _second_set(
    predictions: Predictions,
    targets: Targets,
    has_object: Tensor,
    weights: LossWeights,
    normaliser: Tensor | float,
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
        pairs, found = _query_terms(second, layer, targets, has_object, weights, normaliser, matcher)
        total = total + _weighted(found, weights)
    found |= (of_masks := _mask_terms(second.masks, pairs, targets, normaliser, weights))
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
    normaliser: Tensor | float,
    matcher: Callable[[Tensor, Tensor, Tensor, Tensor], Pairs],
) -> tuple[Pairs, dict[str, Tensor]]:
    """Pairs of one layer's queries, and their box and classification terms by the name of their weight."""
    logits = predictions.logits[layer].float()
    boxes = predictions.boxes_cxcywh[layer].float()
    prompt, query, which = matcher(logits, boxes, targets.boxes_cxcywh, targets.prompt)
    predicted, wanted = boxes[prompt, query], targets.boxes_cxcywh[which]
    l1, giou = box_losses(predicted, wanted, normaliser)
    iou, _ = iou_and_giou(cxcywh_to_xyxy(predicted.detach()), cxcywh_to_xyxy(wanted))
    classification = classification_loss(
        logits, (prompt, query), iou, trained=has_object, padded_queries=weights.padded_queries
    )
    return (prompt, query, which), {"boxes_l1": l1, "boxes_giou": giou, "classification": classification}


def _mask_terms(
    masks: Tensor, pairs: Pairs, targets: Targets, normaliser: Tensor | float, weights: LossWeights
) -> dict[str, Tensor]:
    if not (weights.masks_focal or weights.masks_dice):
        return {}
    prompt, query, which = pairs
    valid = None if targets.valid_mask is None else targets.valid_mask[which]
    focal, dice = mask_losses(masks[prompt, query].float(), targets.masks[which], normaliser, valid)
    return {"masks_focal": focal, "masks_dice": dice}
