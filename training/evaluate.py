"""Evaluate a model folder on a split: text prompts first, true boxes apart and marked as privileged.

One pass a shard: an image is encoded once for all its prompts. Masks are compared on the sample's own
pixel grid, not on the model's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from preprocessing.schema import rle
from training.decision import MASK_THRESHOLDS
from training.metrics import dice_iou
from training.neighbours import Picture, pictures
from training.predict import Segmenter, concept_scores, presence_of, probability_map
from training.prepared import Part, ShardFile, check_shard, objects_by_concept, rows_of
from training.sam3.model import PADDING_LABEL

BATCH_IMAGES = 8
MOST_BOXES = 8


def batches(shard: ShardFile, split: str, part: Part) -> Iterator[list[dict[str, Any]]]:
    """Rows of a part of a split in batches of images."""
    check_shard(shard)
    rows = rows_of(shard, split, part)
    while batch := list(islice(rows, BATCH_IMAGES)):
        yield batch


def truth_of(row: dict[str, Any], concept: str) -> NDArray[np.bool_]:
    """Union (height, width) of a concept's objects; empty where the row has none."""
    union = np.zeros((row["height"], row["width"]), dtype=bool)
    for item in objects_by_concept(row).get(concept, []):
        union |= rle.decode(item["rle"], row["height"], row["width"])
    return union


def true_boxes(row: dict[str, Any], concept: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest objects' boxes (MOST_BOXES, 4) cxcywh, normalised, and labels, padded."""
    boxes = torch.zeros(MOST_BOXES, 4)
    labels = torch.full((MOST_BOXES,), PADDING_LABEL)
    for number, item in enumerate(objects_by_concept(row).get(concept, [])[:MOST_BOXES]):
        x0, y0, x1, y1 = item["bbox_xyxy"]
        width, height = row["width"], row["height"]
        boxes[number] = torch.tensor(
            [(x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height]
        )
        labels[number] = 1
    return boxes, labels


def evaluate_shard(
    segmenter: Segmenter, shard: ShardFile, split: str, part: Part, *, model: str, prompts: Sequence[str]
) -> list[dict[str, Any]]:
    """A row (ROWS_SCHEMA) for each sample, concept and kind of prompt.

    Text prompts are asked for every concept that is present or was searched for and is absent; boxes
    only where there is something to box.
    """
    picture = pictures(shard, split, segmenter.neighbours, segmenter.preprocessing)
    return [
        row
        for batch in batches(shard, split, part)
        for row in _evaluate_batch(segmenter, batch, model, prompts, picture)
    ]


def _pairs(batch: list[dict[str, Any]], kind: str) -> list[tuple[int, str, bool]]:
    found: list[tuple[int, str, bool]] = []
    for number, row in enumerate(batch):
        present = sorted({item["concept"] for item in row["objects"]})
        found.extend((number, concept, True) for concept in present)
        if kind == "text":
            found.extend((number, concept, False) for concept in sorted(row["absent"]))
    return found


def _evaluate_batch(
    segmenter: Segmenter, batch: list[dict[str, Any]], model: str, prompts: Sequence[str], picture: Picture
) -> Iterator[dict[str, Any]]:
    features = segmenter.encode([picture(row, segmenter.image_size) for row in batch])
    decision = segmenter.decision
    for kind in prompts:
        pairs = _pairs(batch, kind)
        if not pairs:
            continue
        boxes = labels = None
        if kind == "box":
            given = [true_boxes(batch[number], concept) for number, concept, _ in pairs]
            boxes, labels = torch.stack([one for one, _ in given]), torch.stack([one for _, one in given])
        predictions = segmenter.decode(
            features, [concept for _, concept, _ in pairs], [number for number, _, _ in pairs], boxes, labels
        )
        scores = concept_scores(predictions, decision)
        presences = presence_of(predictions, decision)
        queries = predictions.logits[-1].sigmoid() * presences.unsqueeze(1)
        for place, (number, concept, present) in enumerate(pairs):
            row, score, presence = batch[number], float(scores[place]), float(presences[place])
            truth = truth_of(row, concept)
            predicted = (
                probability_map(predictions.semantic[place], row["height"], row["width"]) > decision.mask_threshold
            )
            if presence < decision.presence_threshold:
                predicted[:] = False
            union = np.zeros_like(predicted)
            for query in torch.nonzero(queries[place] > decision.instance_threshold).flatten().tolist():
                union |= probability_map(predictions.masks[place, query], row["height"], row["width"]) > 0.5
            dice, iou = dice_iou(truth, predicted)
            yield {
                "sample_id": row["sample_id"],
                "dataset": row["dataset"],
                "modality": row["modality"],
                "case_id": row["case_id"],
                "group_id": row["group_id"],
                "concept": concept,
                "prompt": kind,
                "model": model,
                "present": present,
                "score": score,
                "presence": presence,
                "dice": dice,
                "iou": iou,
                "dice_instances": dice_iou(truth, union)[0],
                "truth_px": int(truth.sum()),
                "predicted_px": int(predicted.sum()),
            }


def threshold_rows(segmenter: Segmenter, shard: ShardFile, split: str, part: Part) -> list[dict[str, Any]]:
    """Dice of each candidate mask threshold, before any presence threshold: what `choose_decision` reads."""
    rows = []
    picture = pictures(shard, split, segmenter.neighbours, segmenter.preprocessing)
    for batch in batches(shard, split, part):
        features = segmenter.encode([picture(row, segmenter.image_size) for row in batch])
        pairs = _pairs(batch, "text")
        if not pairs:
            continue
        predictions = segmenter.decode(features, [pair[1] for pair in pairs], [pair[0] for pair in pairs])
        logits = predictions.presence[-1].float()
        presences = logits.sigmoid()  # as the model says it: what `choose_decision` calibrates
        for place, (number, concept, present) in enumerate(pairs):
            row = batch[number]
            found: dict[str, Any] = {
                "dataset": row["dataset"],
                "present": present,
                "presence": float(presences[place]),
                "presence_logit": float(logits[place]),
            }
            if present:
                truth = truth_of(row, concept)
                probability = probability_map(predictions.semantic[place], row["height"], row["width"])
                found["dice"] = [dice_iou(truth, probability > threshold)[0] for threshold in MASK_THRESHOLDS]
            rows.append(found)
    return rows
