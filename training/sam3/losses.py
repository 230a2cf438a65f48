"""SAM3's fine-tuning losses, in fp32 (formulas of the official criterion, held against its figures in the tests).

`normaliser` is the number of objects over all prompts, at least 1; in distributed training it is
averaged over ranks by the caller.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from training.sam3.boxes import cxcywh_to_xyxy, iou_and_giou
from training.sam3.matcher import match
from training.sam3.model import Predictions


@dataclass(frozen=True)
class LossWeights:
    """Weight of each term; the defaults are the official fine-tuning recipe's."""

    boxes_l1: float = 5.0
    boxes_giou: float = 2.0
    classification: float = 20.0
    presence: float = 20.0
    masks_focal: float = 200.0
    masks_dice: float = 10.0
    semantic_focal: float = 20.0
    semantic_dice: float = 30.0


@dataclass
class Targets:
    """Truth for a pack of prompts."""

    boxes_cxcywh: Tensor  # (objects, 4), normalised
    prompt: Tensor  # (objects,) index of the prompt an object answers
    masks: Tensor  # (objects, height, width), 0..1
    semantic: Tensor  # (prompts, height, width), 0..1: union of a prompt's objects


def sigmoid_focal(logits: Tensor, target: Tensor, alpha: float, gamma: float) -> Tensor:
    """Element-wise focal loss (arXiv:1708.02002); a negative `alpha` leaves the balance out."""
    loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    probability = logits.sigmoid()
    correct = probability * target + (1 - probability) * (1 - target)
    loss = loss * (1 - correct) ** gamma
    if alpha >= 0:
        loss = loss * (alpha * target + (1 - alpha) * (1 - target))
    return loss


def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """1 − (2·overlap + 1) / (sum + 1) for each row of (rows, pixels) (V-Net, arXiv:1606.04797)."""
    probability = logits.sigmoid()
    overlap = 2 * (probability * target).sum(-1)
    return 1 - (overlap + 1) / (probability.sum(-1) + target.sum(-1) + 1)


def box_losses(boxes_cxcywh: Tensor, targets_cxcywh: Tensor, normaliser: Tensor | float) -> tuple[Tensor, Tensor]:
    """L1 and generalised-IoU loss of matched pairs (pairs, 4)."""
    l1 = (boxes_cxcywh - targets_cxcywh).abs().sum() / normaliser
    _, giou = iou_and_giou(cxcywh_to_xyxy(boxes_cxcywh), cxcywh_to_xyxy(targets_cxcywh))
    return l1, (1 - giou).sum() / normaliser


def classification_losses(
    logits: Tensor,
    presence: Tensor,
    matched: tuple[Tensor, Tensor],
    iou: Tensor,
    has_object: Tensor,
    *,
    alpha: float = 0.25,
    gamma: float = 2.0,
    positive_weight: float = 10.0,
) -> tuple[Tensor, Tensor]:
    """IoU-aware binary cross-entropy of the queries, and the presence loss.

    A matched query's soft target is score^alpha · IoU^(1 − alpha). Where a prompt has no object its
    queries are not trained: presence alone says so.

    Args:
        logits: (prompts, queries).
        presence: (prompts,) logits.
        matched: prompt and query index of the pairs.
        iou: (pairs,) IoU of predicted and true box.
        has_object: (prompts,) bool.
        alpha: share of the score in the soft target.
        gamma: focus on confident false alarms.
        positive_weight: weight of matched queries.
    """
    probability = logits.sigmoid()
    hard = torch.zeros_like(logits)
    hard[matched] = 1.0
    with torch.no_grad():
        soft = torch.zeros_like(logits)
        soft[matched] = (probability[matched] ** alpha * iou.clamp(min=0) ** (1 - alpha)).clamp(min=0.01)
    positive = F.binary_cross_entropy_with_logits(logits, soft, reduction="none") * hard * positive_weight
    negative = F.binary_cross_entropy_with_logits(logits, hard, reduction="none") * (1 - hard) * probability**gamma
    wanted = has_object.to(logits.dtype)
    classification = ((positive + negative) * wanted.unsqueeze(1)).mean()
    return classification, sigmoid_focal(presence, wanted, alpha=0.5, gamma=0.0).mean()


def mask_losses(logits: Tensor, target: Tensor, normaliser: Tensor | float) -> tuple[Tensor, Tensor]:
    """Focal and Dice loss of matched masks (pairs, height, width); logits are resized to the target."""
    if logits.shape[-2:] != target.shape[-2:]:
        logits = F.interpolate(logits.unsqueeze(1), target.shape[-2:], mode="bilinear", align_corners=False).squeeze(1)
    rows, truth = logits.flatten(1), target.flatten(1)
    focal = sigmoid_focal(rows, truth, 0.25, 2.0).mean(1).sum() / normaliser
    return focal, dice_loss(rows, truth).sum() / normaliser


def semantic_losses(logits: Tensor, target: Tensor, has_object: Tensor) -> tuple[Tensor, Tensor]:
    """Focal and Dice loss of the semantic map (prompts, height, width), over prompts that have an object."""
    if logits.shape[-2:] != target.shape[-2:]:
        logits = F.interpolate(logits.unsqueeze(1), target.shape[-2:], mode="bilinear", align_corners=False).squeeze(1)
    rows, truth = logits.flatten(1), target.flatten(1)
    wanted = has_object.to(logits.dtype)
    count = wanted.sum() + 1e-6
    focal = (sigmoid_focal(rows, truth, 0.6, 2.0).mean(1) * wanted).sum() / count
    return focal, (dice_loss(rows, truth) * wanted).sum() / count


def criterion(
    predictions: Predictions, targets: Targets, weights: LossWeights, normaliser: Tensor | float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Weighted sum over all decoder layers, and the last layer's unweighted terms for the log."""
    prompts = predictions.logits.shape[1]
    has_object = torch.zeros(prompts, dtype=torch.bool, device=predictions.logits.device)
    has_object[targets.prompt] = True
    total = predictions.logits.new_zeros((), dtype=torch.float32)
    terms: dict[str, Tensor] = {}
    layers = predictions.logits.shape[0]
    for layer in range(layers):
        logits = predictions.logits[layer].float()
        boxes = predictions.boxes_cxcywh[layer].float()
        prompt, query, which = match(logits, boxes, targets.boxes_cxcywh, targets.prompt)
        pairs, wanted = boxes[prompt, query], targets.boxes_cxcywh[which]
        l1, giou = box_losses(pairs, wanted, normaliser)
        iou, _ = iou_and_giou(cxcywh_to_xyxy(pairs.detach()), cxcywh_to_xyxy(wanted))
        classification, presence = classification_losses(
            logits, predictions.presence[layer].float(), (prompt, query), iou, has_object
        )
        total = total + (
            weights.boxes_l1 * l1
            + weights.boxes_giou * giou
            + weights.classification * classification
            + weights.presence * presence
        )
        if layer == layers - 1:
            terms = {"boxes_l1": l1, "boxes_giou": giou, "classification": classification, "presence": presence}
            # a term of weight 0 is not computed: at full size the maps are most of a step's loss memory
            of_maps: dict[str, Tensor] = {}
            if weights.masks_focal or weights.masks_dice:
                focal, dice = mask_losses(predictions.masks[prompt, query].float(), targets.masks[which], normaliser)
                of_maps |= {"masks_focal": focal, "masks_dice": dice}
            if weights.semantic_focal or weights.semantic_dice:
                focal, dice = semantic_losses(predictions.semantic.float(), targets.semantic, has_object)
                of_maps |= {"semantic_focal": focal, "semantic_dice": dice}
            if of_maps:
                total = total + sum(getattr(weights, name) * value for name, value in of_maps.items())
            terms |= of_maps
    return total, {name: value.detach() for name, value in terms.items()}
