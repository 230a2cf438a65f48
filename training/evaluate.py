"""Evaluate a model folder on a split: text prompts first, true boxes apart and marked as privileged.

One pass a shard: an image is encoded once for all its prompts. Masks are compared on the sample's own
pixel grid, not on the model's. What is measured over more than a sample (sets of instances, whole volumes) is handed
on beside the rows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from preprocessing.schema import rle
from training.decision import MASK_THRESHOLDS
from training.metrics import dice_iou
from training.neighbours import pictures
from training.predict import Segmenter, probability_map
from training.prepared import Part, ShardFile, check_shard, objects_by_concept, rows_of
from training.sam3.model import PADDING_LABEL
from training.scoring.answers import Answer, answers_of, match_of
from training.scoring.failure import failure_of

BATCH_IMAGES = 8
MOST_BOXES = 8
MOST_PROMPTS = 32
"""Prompts that the head is asked at a time: its query masks are what memory goes to."""


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


@dataclass
class Found:
    """What a part of a split gave."""

    rows: list[dict[str, Any]] = field(default_factory=list)  # ROWS_SCHEMA
    # of text prompts, for what is measured over more than a sample: keys of the row, and
    instances: list[dict[str, Any]] = field(default_factory=list)  # "matching": of concepts with instances
    slices: list[dict[str, Any]] = field(default_factory=list)  # "axis", "slice_index", "rle": of slices of volumes


@dataclass(frozen=True)
class Asked:
    """How a part is asked."""

    model: str  # name of the model in the rows: before, after or champion
    prompts: Sequence[str] = ("text",)  # of `training.measure.PROMPTS`
    wordings: Mapping[str, Sequence[str]] = field(default_factory=dict)  # concept -> its synonyms
    instances: Collection[str] = ()  # concepts that are sets of instances
    volumes: bool = False  # keep masks of slices


@dataclass(frozen=True)
class _Prompt:
    number: int  # of the row in its batch
    concept: str
    present: bool
    wording: str


def evaluate_shard(
    segmenter: Segmenter, shard: ShardFile, split: str, part: Part, *, model: str, prompts: Sequence[str]
) -> list[dict[str, Any]]:
    """Rows (ROWS_SCHEMA) alone of `evaluate_part`, for a model that is called `model`."""
    return evaluate_part(segmenter, shard, split, part, Asked(model, prompts)).rows


def evaluate_part(segmenter: Segmenter, shard: ShardFile, split: str, part: Part, asked: Asked) -> Found:
    """Ask a model for every sample and concept; an image is encoded once for all kinds of prompts.

    Text prompts are asked for every concept that is present or was searched for and is absent; boxes and synonyms
    only where something is there.
    """
    picture = pictures(shard, split, segmenter.neighbours, segmenter.preprocessing)
    found = Found()
    for batch in batches(shard, split, part):
        evaluate_batch(segmenter, batch, [picture(row, segmenter.image_size) for row in batch], asked, found)
    return found


def evaluate_batch(
    segmenter: Segmenter, batch: list[dict[str, Any]], images: list[NDArray[np.uint8]], asked: Asked, found: Found
) -> None:
    """Ask for rows of a batch, `images` being what the model sees of them; what comes out is added to `found`."""
    features = segmenter.encode(images)
    truths: dict[tuple[int, str], NDArray[np.bool_]] = {}
    for kind in asked.prompts:
        pairs = _prompts(batch, kind, asked.wordings)
        for first in range(0, len(pairs), MOST_PROMPTS):
            pack = pairs[first : first + MOST_PROMPTS]
            boxes = labels = None
            if kind == "box":
                given = [true_boxes(batch[one.number], one.concept) for one in pack]
                boxes, labels = torch.stack([one for one, _ in given]), torch.stack([one for _, one in given])
            said = segmenter.decode(
                features, [one.wording for one in pack], [one.number for one in pack], boxes, labels
            )
            sizes = [(batch[one.number]["height"], batch[one.number]["width"]) for one in pack]
            for one, answer in zip(pack, answers_of(said, sizes, segmenter.decision), strict=True):
                row, key = batch[one.number], (one.number, one.concept)
                if key not in truths:
                    truths[key] = truth_of(row, one.concept)
                record = _record(row, one, kind, asked.model, truths[key], answer)
                found.rows.append(record)
                if kind != "text":
                    continue
                if one.concept in asked.instances:
                    matching = match_of(row, one.concept, answer, segmenter.decision)
                    found.instances.append({**_key(record), "matching": matching})
                if asked.volumes and row["slice_index"] is not None:
                    place = {"axis": row["axis"], "slice_index": row["slice_index"], "rle": rle.encode(answer.mask)}
                    found.slices.append({**_key(record), **place})


def _prompts(batch: list[dict[str, Any]], kind: str, wordings: Mapping[str, Sequence[str]]) -> list[_Prompt]:
    """Picture by picture, so that what is asked of one picture lies together."""
    return [
        _Prompt(number, concept, present, wording)
        for number, concept, present in _pairs(batch, kind)
        for wording in (wordings.get(concept, ()) if kind == "synonym" else (concept,))
    ]


def _pairs(batch: list[dict[str, Any]], kind: str) -> list[tuple[int, str, bool]]:
    found: list[tuple[int, str, bool]] = []
    for number, row in enumerate(batch):
        present = sorted({item["concept"] for item in row["objects"]})
        found.extend((number, concept, True) for concept in present)
        if kind == "text":
            found.extend((number, concept, False) for concept in sorted(row["absent"]))
    return found


def _record(
    row: dict[str, Any], asked: _Prompt, kind: str, model: str, truth: NDArray[np.bool_], answer: Answer
) -> dict[str, Any]:
    dice, iou = dice_iou(truth, answer.mask)
    truth_px, predicted_px = int(truth.sum()), int(answer.mask.sum())
    return {
        "sample_id": row["sample_id"],
        "dataset": row["dataset"],
        "modality": row["modality"],
        "case_id": row["case_id"],
        "group_id": row["group_id"],
        "concept": asked.concept,
        "prompt": kind,
        "wording": asked.wording,
        "model": model,
        "present": asked.present,
        "score": answer.score,
        "presence": answer.presence,
        "dice": dice,
        "iou": iou,
        "dice_instances": dice_iou(truth, answer.union)[0],
        "dice_top1": dice_iou(truth, answer.top1)[0] if asked.present else None,
        "truth_px": truth_px,
        "predicted_px": predicted_px,
        "image_px": row["height"] * row["width"],
        "failure": failure_of(asked.present, dice, truth_px, predicted_px),
    }


def _key(record: dict[str, Any]) -> dict[str, Any]:
    names = ("sample_id", "dataset", "modality", "case_id", "group_id", "concept", "model", "present")
    return {name: record[name] for name in names}


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
