"""What a model's head says of a pair (picture, concept), as masks on the picture's own grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from preprocessing.schema import rle
from training.decision import Decision
from training.predict import concept_scores, presence_of, probability_map, query_scores
from training.prepared import objects_by_concept
from training.sam3.model import Predictions
from training.scoring.instances import Crop, Matching, iou_matrix, match

Mask = NDArray[np.bool_]

INSTANCE_FLOOR = 0.05
"""Predictions below this score count for nothing, AP included."""
_MOST_PIXELS = 1 << 26  # of query masks resized at a time


@dataclass
class Answer:
    """One prompt's answer for one picture, masks bool (height, width)."""

    score: float
    presence: float
    mask: Mask  # the semantic map, empty where the concept is called absent: what is served
    union: Mask  # of the instances above the threshold
    top1: Mask  # of the query with the best score, however low that is
    queries: NDArray[np.float64]  # (queries,) scores
    logits: Tensor  # (queries, rows, columns)


def answers_of(predictions: Predictions, sizes: list[tuple[int, int]], decision: Decision) -> list[Answer]:
    """Of each prompt of a pack; `sizes` (height, width) of its picture."""
    scores, presences = concept_scores(predictions, decision), presence_of(predictions, decision)
    queries = query_scores(predictions, decision)
    found = []
    for place, (height, width) in enumerate(sizes):
        score, presence = float(scores[place]), float(presences[place])
        mask = probability_map(predictions.semantic[place], height, width) > decision.mask_threshold
        if bool(torch.isnan(predictions.semantic[place]).any()):
            score = presence = float("nan")  # the map is what is served: where it is no number, nothing was answered
        if not presence >= decision.presence_threshold:  # also where it is NaN
            mask[:] = False
        logits = predictions.masks[place]
        sure = torch.nonzero(queries[place] > decision.instance_threshold).flatten()
        best = int(queries[place].argmax())
        union = np.zeros_like(mask)
        for part in query_masks(logits[sure], height, width):
            union |= part
        found.append(
            Answer(
                score,
                presence,
                mask,
                union,
                next(query_masks(logits[best : best + 1], height, width)),
                queries[place].double().numpy(),
                logits,
            )
        )
    return found


def query_masks(logits: Tensor, height: int, width: int) -> Any:
    """Masks (height, width) of queries (queries, rows, columns), one after the other."""
    at_once = max(1, _MOST_PIXELS // (height * width))
    for first in range(0, len(logits), at_once):
        part = logits[first : first + at_once].float()
        resized = F.interpolate(part[None], (height, width), mode="bilinear", align_corners=False)[0]
        yield from (resized > 0).numpy()


def match_of(row: dict[str, Any], concept: str, answer: Answer, decision: Decision) -> Matching:
    """The instances of a pair matched with the objects of its row."""
    height, width = row["height"], row["width"]
    kept = np.flatnonzero(answer.queries > min(INSTANCE_FLOOR, decision.instance_threshold))
    predicted = [Crop.of(mask) for mask in query_masks(answer.logits[torch.from_numpy(kept)], height, width)]
    truth = [Crop.of(rle.decode(item["rle"], height, width)) for item in objects_by_concept(row).get(concept, [])]
    scores = answer.queries[kept]
    # a prediction without a pixel is none
    there = [number for number, crop in enumerate(predicted) if crop.mask.size]
    ious = iou_matrix(truth, [predicted[number] for number in there])
    return match(ious, scores[there].tolist(), (scores[there] > decision.instance_threshold).tolist())
