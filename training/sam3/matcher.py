"""Assignments of queries to objects, one to one (Carion et al., DETR, arXiv:2005.12872) and one to many, in fp32."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from training.sam3.assignment import cheapest
from training.sam3.boxes import cxcywh_to_xyxy, iou_and_giou

COST_CLASS, COST_L1, COST_GIOU = 2.0, 5.0, 2.0
ALPHA, GAMMA = 0.25, 2.0
_EPSILON = 1e-8


@torch.no_grad()
def match(
    logits: Tensor, boxes_cxcywh: Tensor, target_boxes_cxcywh: Tensor, target_prompt: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Cheapest assignment for each prompt, by focal class cost, L1 and generalised IoU.

    Args:
        logits: (prompts, queries).
        boxes_cxcywh: (prompts, queries, 4), normalised.
        target_boxes_cxcywh: (objects, 4), the objects of all prompts in a row.
        target_prompt: (objects,) index of each object's prompt.

    Returns:
        prompt, query and object index of each pair, one-dimensional and equally long. A prompt with
        more objects than queries keeps as many pairs as it has queries.
    """
    device = logits.device
    if len(target_prompt) == 0:
        empty = torch.zeros(0, dtype=torch.long, device=device)
        return empty, empty, empty
    # (objects, queries): each object only meets the queries of its own prompt
    probability = logits.float().sigmoid()[target_prompt]
    positive = ALPHA * (1 - probability) ** GAMMA * -(probability + _EPSILON).log()
    negative = (1 - ALPHA) * probability**GAMMA * -(1 - probability + _EPSILON).log()
    predicted = boxes_cxcywh.float()[target_prompt]
    wanted = target_boxes_cxcywh.float().unsqueeze(1)
    _, giou = iou_and_giou(cxcywh_to_xyxy(predicted), cxcywh_to_xyxy(wanted))
    cost = COST_CLASS * (positive - negative) + COST_L1 * (predicted - wanted).abs().sum(-1) - COST_GIOU * giou
    costs = np.nan_to_num(cost.cpu().numpy(), nan=1e6, posinf=1e6, neginf=-1e6)
    prompts = target_prompt.cpu().numpy()
    found: list[tuple[int, int, int]] = []
    for prompt in np.unique(prompts):
        objects = np.flatnonzero(prompts == prompt)
        rows, columns = cheapest(costs[objects])
        found.extend((int(prompt), int(query), int(objects[row])) for row, query in zip(rows, columns, strict=True))
    triples = torch.tensor(sorted(found), dtype=torch.long, device=device).reshape(-1, 3)
    return triples[:, 0], triples[:, 1], triples[:, 2]


SCORE_SHARE, LEAST_QUALITY, QUERIES_PER_OBJECT = 0.3, 0.4, 4


@torch.no_grad()
def match_many(
    logits: Tensor, boxes_cxcywh: Tensor, target_boxes_cxcywh: Tensor, target_prompt: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """For each object the best queries: up to 4, of quality 0.3 · score + 0.7 · IoU above 0.4 (official values).

    Arguments and result as of `match`. A query may serve several objects, an object may have none; of equal
    qualities at the border none is taken, as in the official code, which compares with a quantile.
    """
    if len(target_prompt) == 0:
        empty = torch.zeros(0, dtype=torch.long, device=logits.device)
        return empty, empty, empty
    score = logits.float().sigmoid()[target_prompt]
    predicted = cxcywh_to_xyxy(boxes_cxcywh.float())[target_prompt]
    iou, _ = iou_and_giou(predicted, cxcywh_to_xyxy(target_boxes_cxcywh.float()).unsqueeze(1))
    quality = SCORE_SHARE * score + (1 - SCORE_SHARE) * torch.nan_to_num(iou)
    share = max(0.0, 1 - QUERIES_PER_OBJECT / logits.shape[1])
    border = torch.quantile(quality, share, dim=1, keepdim=True)
    objects, queries = torch.nonzero((quality > border) & (quality > LEAST_QUALITY), as_tuple=True)
    return target_prompt[objects], queries, objects
