"""The terms of SAM3's losses, in fp32: formulas of the official criterion, held against its figures in the tests.

`normaliser` is the number of objects over all prompts, at least 1. Of several ranks each divides by its share of what
all have (`losses.Counts`): `normaliser`, and `prompts` and `count` where they are given. Without them means are over
the prompts that are there.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from training.sam3.boxes import cxcywh_to_xyxy, iou_and_giou

_EPSILON = 1e-6


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


def classification_loss(
    logits: Tensor,
    matched: tuple[Tensor, Tensor],
    iou: Tensor,
    *,
    trained: Tensor | None = None,
    exhaustive: Tensor | None = None,
    padded_queries: float = 0,
    prompts: Tensor | float | None = None,
    positive_focal: bool = False,
    alpha: float = 0.25,
    gamma: float = 2.0,
    positive_weight: float = 10.0,
) -> Tensor:
    """IoU-aware binary cross-entropy of the queries.

    A matched query's soft target is score^alpha · IoU^(1 − alpha); of several objects that a query is matched to,
    the one that gives the highest target counts.

    Args:
        logits: (prompts, queries).
        matched: prompt and query index of the pairs.
        iou: (pairs,) IoU of predicted and true box.
        trained: (prompts,) bool: where False, a prompt's queries are not trained (there presence says that the
            concept is absent); None: all are.
        exhaustive: (prompts,) bool: where False, not all objects were annotated, and unmatched queries are not
            held to be false; None: all were.
        padded_queries: divide as if there were so many queries; 0: the mean over those there are.
        prompts: number of prompts to divide by; None: those there are. Not with `exhaustive`.
        positive_focal: focal loss on matched queries, too.
        alpha: share of the score in the soft target.
        gamma: focus on confident false alarms.
        positive_weight: weight of matched queries.
    """
    probability = logits.sigmoid()
    hard = torch.zeros_like(logits)
    hard[matched] = 1.0
    with torch.no_grad():
        target = (probability[matched] ** alpha * iou.clamp(min=0) ** (1 - alpha)).clamp(min=0.01)
        place = matched[0] * logits.shape[1] + matched[1]
        soft = torch.zeros_like(logits).flatten().scatter_reduce(0, place, target, "amax").view_as(logits)
    if positive_focal:
        positive = sigmoid_focal(logits, soft, 0.5, gamma)
    else:
        positive = F.binary_cross_entropy_with_logits(logits, soft, reduction="none")
    negative = F.binary_cross_entropy_with_logits(logits, hard, reduction="none") * (1 - hard) * probability**gamma
    loss = positive * hard * positive_weight + negative
    if trained is not None:
        loss = loss * trained.to(logits.dtype).unsqueeze(1)
    if exhaustive is not None:
        counted = ((hard > 0) | exhaustive.unsqueeze(1)).to(logits.dtype)
        return (loss * counted).sum() / (counted.sum() + _EPSILON)
    prompts = logits.shape[0] if prompts is None else prompts
    return loss.sum() / (max(padded_queries, logits.shape[1]) * prompts)


def presence_loss(presence: Tensor, has_object: Tensor, prompts: Tensor | float | None = None) -> Tensor:
    """Binary cross-entropy, halved, of presence logits (prompts,) (the official focal loss with gamma 0, alpha 0.5).

    `prompts`: number of prompts to divide by; None: those there are.
    """
    loss = sigmoid_focal(presence, has_object.to(presence.dtype), alpha=0.5, gamma=0.0).sum()
    return loss / (len(presence) if prompts is None else prompts)


def mask_losses(
    logits: Tensor, target: Tensor, normaliser: Tensor | float, valid: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Focal and Dice loss of matched masks (pairs, height, width); logits are resized to the target.

    `valid` (pairs,) bool: False for an object whose mask is not known, which then counts in the normaliser alone.
    """
    if valid is not None:
        logits, target = logits[valid], target[valid]
    if logits.shape[-2:] != target.shape[-2:]:
        logits = F.interpolate(logits.unsqueeze(1), target.shape[-2:], mode="bilinear", align_corners=False).squeeze(1)
    rows, truth = logits.flatten(1), target.flatten(1)
    focal = sigmoid_focal(rows, truth, 0.25, 2.0).mean(1).sum() / normaliser
    return focal, dice_loss(rows, truth).sum() / normaliser


def semantic_losses(
    logits: Tensor, target: Tensor, counted: Tensor | None, count: Tensor | float | None = None
) -> tuple[Tensor, Tensor]:
    """Focal and Dice loss of the semantic map (prompts, height, width); logits are resized to the target.

    `counted` (prompts,) bool: the prompts that have an object; None: mean over all. `count`: how many to divide by;
    None: those there are.
    """
    if logits.shape[-2:] != target.shape[-2:]:
        logits = F.interpolate(logits.unsqueeze(1), target.shape[-2:], mode="bilinear", align_corners=False).squeeze(1)
    rows, truth = logits.flatten(1), target.flatten(1)
    focal, dice = sigmoid_focal(rows, truth, 0.6, 2.0).mean(1), dice_loss(rows, truth)
    if counted is None:
        return focal.mean(), dice.mean()
    wanted = counted.to(logits.dtype)
    count = wanted.sum() + _EPSILON if count is None else count
    return (focal * wanted).sum() / count, (dice * wanted).sum() / count
