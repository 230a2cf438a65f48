"""Evaluate a model folder on a split: text prompts first, true boxes apart and marked as privileged.

One pass a shard: an image is encoded once for all its prompts. Masks are compared on the sample's own
pixel grid, not on the model's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from preprocessing.schema import rle
from training.metrics import dice_iou
from training.predict import Decision, Segmenter, concept_scores, probability_map
from training.prepared import ShardFile, check_shard, decode_image, objects_by_concept, rows_of
from training.recipes import code_sha256
from training.sam3.model import PADDING_LABEL

BATCH_IMAGES = 8
MOST_BOXES = 8
MASK_THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7)
SCORE_THRESHOLDS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)

ROWS_SCHEMA = pa.schema(
    [
        pa.field(name, kind)
        for name, kind in {
            "sample_id": pa.string(),
            "dataset": pa.string(),
            "modality": pa.string(),
            "case_id": pa.string(),
            "group_id": pa.string(),
            "concept": pa.string(),
            "prompt": pa.string(),
            "model": pa.string(),
            "present": pa.bool_(),
            "score": pa.float64(),
            "dice": pa.float64(),
            "iou": pa.float64(),
            "dice_instances": pa.float64(),
            "truth_px": pa.int64(),
            "predicted_px": pa.int64(),
        }.items()
    ]
)


def recipe_file(params: dict[str, Any]) -> dict[str, Any]:
    """What `recipes/evaluate.json` of a workspace says."""
    return {"evaluate": params, "code_sha256": code_sha256()}


def batches(shard: ShardFile, split: str) -> Iterator[list[dict[str, Any]]]:
    """Rows of a split in batches of images."""
    check_shard(shard)
    batch: list[dict[str, Any]] = []
    for row in rows_of(shard):
        if row["split"] != split:
            continue
        batch.append(row)
        if len(batch) == BATCH_IMAGES:
            yield batch
            batch = []
    if batch:
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
    segmenter: Segmenter, shard: ShardFile, split: str, *, model: str, prompts: Sequence[str], most: int = 0
) -> list[dict[str, Any]]:
    """A row (ROWS_SCHEMA) for each sample, concept and kind of prompt.

    Text prompts are asked for every concept that is present or was searched for and is absent; boxes
    only where there is something to box. `most` > 0 stops after as many samples.
    """
    rows: list[dict[str, Any]] = []
    seen = 0
    for batch in batches(shard, split):
        kept = batch[: most - seen] if most else batch
        seen += len(kept)
        if kept:
            rows.extend(_evaluate_batch(segmenter, kept, model, prompts))
    return rows


def _pairs(batch: list[dict[str, Any]], kind: str) -> list[tuple[int, str, bool]]:
    found = []
    for number, row in enumerate(batch):
        present = sorted({item["concept"] for item in row["objects"]})
        found.extend((number, concept, True) for concept in present)
        if kind == "text":
            found.extend((number, concept, False) for concept in sorted(row["absent"]))
    return found


def _evaluate_batch(
    segmenter: Segmenter, batch: list[dict[str, Any]], model: str, prompts: Sequence[str]
) -> Iterator[dict[str, Any]]:
    features = segmenter.encode([decode_image(row["image"], segmenter.image_size) for row in batch])
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
        scores = concept_scores(predictions)
        queries = predictions.logits[-1].sigmoid() * predictions.presence[-1].sigmoid().unsqueeze(1)
        for place, (number, concept, present) in enumerate(pairs):
            row, score = batch[number], float(scores[place])
            truth = truth_of(row, concept)
            predicted = probability_map(predictions.semantic[place], row["height"], row["width"]) > decision.mask_threshold
            if score < decision.score_threshold:
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
                "dice": dice,
                "iou": iou,
                "dice_instances": dice_iou(truth, union)[0],
                "truth_px": int(truth.sum()),
                "predicted_px": int(predicted.sum()),
            }


def threshold_rows(segmenter: Segmenter, shard: ShardFile, split: str) -> list[dict[str, Any]]:
    """Dice of each candidate mask threshold, before any score threshold: what `choose_decision` reads."""
    rows = []
    for batch in batches(shard, split):
        features = segmenter.encode([decode_image(row["image"], segmenter.image_size) for row in batch])
        pairs = _pairs(batch, "text")
        if not pairs:
            continue
        predictions = segmenter.decode(features, [pair[1] for pair in pairs], [pair[0] for pair in pairs])
        scores = concept_scores(predictions)
        for place, (number, concept, present) in enumerate(pairs):
            row = batch[number]
            found: dict[str, Any] = {"dataset": row["dataset"], "present": present, "score": float(scores[place])}
            if present:
                truth = truth_of(row, concept)
                probability = probability_map(predictions.semantic[place], row["height"], row["width"])
                found["dice"] = [dice_iou(truth, probability > threshold)[0] for threshold in MASK_THRESHOLDS]
            rows.append(found)
    return rows


def choose_decision(rows: list[dict[str, Any]]) -> Decision:
    """Thresholds that do best on the validation split, as the mean over datasets.

    First the mask threshold by Dice on present concepts; then the score threshold by the same Dice
    with absent concepts counted too: 1 where the model says absent, 0 where it does not.
    """
    if not any(row["present"] for row in rows):
        return Decision()
    by_threshold = [
        _mean_over_datasets([(row["dataset"], row["dice"][index]) for row in rows if row["present"]])
        for index in range(len(MASK_THRESHOLDS))
    ]
    best = int(np.argmax(by_threshold))
    by_score = [
        _mean_over_datasets(
            [
                (row["dataset"], (row["dice"][best] if row["score"] >= least else 0.0) if row["present"] else float(row["score"] < least))
                for row in rows
            ]
        )
        for least in SCORE_THRESHOLDS
    ]
    return replace(
        Decision(), mask_threshold=MASK_THRESHOLDS[best], score_threshold=SCORE_THRESHOLDS[int(np.argmax(by_score))]
    )


def decision_record(decision: Decision) -> dict[str, float]:
    """What `config.json` keeps of a decision."""
    return asdict(decision)


def _mean_over_datasets(values: list[tuple[str, float]]) -> float:
    datasets: dict[str, list[float]] = {}
    for dataset, value in values:
        datasets.setdefault(dataset, []).append(value)
    return float(np.mean([np.mean(part) for part in datasets.values()]))


def mean(values: Sequence[float]) -> float | None:
    """Mean, or None where there is nothing to measure."""
    return float(np.mean(values)) if len(values) else None


def summarise(rows: list[dict[str, Any]], modalities: dict[str, str]) -> dict[str, Any]:
    """`datasets` and `summary` of evaluation.json from the rows of all samples."""
    datasets: dict[str, Any] = {}
    for name, modality in modalities.items():
        own = [row for row in rows if row["dataset"] == name]

        def dice(model: str, prompt: str, part: list[dict[str, Any]], figure: str = "dice") -> float | None:
            return mean([row[figure] for row in part if row["present"] and row["model"] == model and row["prompt"] == prompt])

        def score(model: str, present: bool, part: list[dict[str, Any]]) -> float | None:
            return mean([row["score"] for row in part if row["prompt"] == "text" and row["model"] == model and row["present"] is present])

        def figures(part: list[dict[str, Any]]) -> dict[str, Any]:
            return {
                "dice_text_before": dice("before", "text", part),
                "dice_text_after": dice("after", "text", part),
                "dice_box_after": dice("after", "box", part),
                "iou_text_after": dice("after", "text", part, "iou"),
                "dice_instances_after": dice("after", "text", part, "dice_instances"),
            }

        asked = [row for row in own if row["prompt"] == "text" and row["model"] == "after"]
        datasets[name] = {
            "modality": modality,
            "samples": len({row["sample_id"] for row in own}),
            **figures(own),
            "score_present": score("after", True, own),
            "score_absent": score("after", False, own),
            "score_absent_before": score("before", False, own),
            "absent_pairs": sum(not row["present"] for row in asked),
            "concepts": {
                concept: {"pairs": sum(row["present"] for row in asked if row["concept"] == concept), **figures([row for row in own if row["concept"] == concept])}
                for concept in sorted({row["concept"] for row in own})
            },
        }
    absent = [row["score"] for row in rows if row["prompt"] == "text" and row["model"] == "after" and not row["present"]]
    summary: dict[str, Any] = {
        figure: mean([entry[figure] for entry in datasets.values() if entry[figure] is not None])
        for figure in (
            "dice_text_before",
            "dice_text_after",
            "dice_box_after",
            "iou_text_after",
            "dice_instances_after",
            "score_present",
            "score_absent",
            "score_absent_before",
        )
    }
    summary["score_absent_pairs"] = mean(absent)
    summary["samples"] = sum(entry["samples"] for entry in datasets.values())
    return {"datasets": datasets, "summary": summary}


def table_of(rows: list[dict[str, Any]]) -> pa.Table:
    """Rows as an Arrow table in a fixed order."""
    ordered = sorted(rows, key=lambda row: (row["dataset"], row["sample_id"], row["concept"], row["prompt"], row["model"]))
    return pa.Table.from_pylist(ordered, schema=ROWS_SCHEMA)


def shards_for(data_root: Path, datasets: Sequence[str]) -> list[ShardFile]:
    """All shards of the datasets."""
    from training.prepared import shards_of

    return [shard for dataset in datasets for shard in shards_of(data_root, dataset)]
