"""What more prompts an image cost an evaluation: `python -m training.bench.prompts_cost`.

The evaluation's own pass is timed, from the encoded picture to the rows: a picture is decoded and seen once and asked
for K concepts. The weights are as initialised and the pictures are made up: neither changes what is computed. Rounds
take K in turn, so that what else the machine does falls on all alike; the median is told, and the spread of rounds.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import sys
import time
from typing import Any

import numpy as np
import torch
from PIL import Image

from preprocessing.schema import rle
from training.decision import Decision
from training.decode import decode_image
from training.evaluate import Asked, Found, evaluate_batch
from training.predict import Segmenter
from training.sam3.checkpoint import build_model
from training.sam3.init import initialise
from training.sam3.sizes import named
from training.sam3.tokenizer import PromptTokenizer

CONCEPTS = ("bright disc", "dark square", "left kidney", "cell nucleus", "polyp", "liver", "optic disc", "tumor")


def made_rows(images: int, prompts: int, size: int) -> list[dict[str, Any]]:
    """Shard rows of pictures (size, size) with `prompts` concepts each, a disc for each concept."""
    draw = np.random.default_rng(0)
    rows, columns = np.mgrid[:size, :size]
    found = []
    for number in range(images):
        objects, pixels = [], draw.integers(60, 140, (size, size)).astype(np.uint8)
        for concept in CONCEPTS[:prompts]:
            y, x, radius = draw.integers(size // 4, 3 * size // 4, 3).tolist()
            mask = (rows - y) ** 2 + (columns - x) ** 2 < (radius / 3) ** 2
            pixels[mask] = 220
            box = list(rle.bbox_xyxy(mask))
            objects.append(
                {"concept": concept, "instance": 1, "rle": rle.encode(mask), "bbox_xyxy": box, "area": int(mask.sum())}
            )
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, format="PNG")
        names = dict.fromkeys(("dataset", "modality", "case_id", "group_id"), "made up")
        place = {"sample_id": str(number), "height": size, "width": size, "slice_index": None}
        found.append({**names, **place, "image": buffer.getvalue(), "objects": objects, "absent": []})
    return found


def measure(model_size: str, prompts: list[int], images: int, size: int, rounds: int, threads: int) -> dict[str, Any]:
    """Seconds an image for each K, and how much more than with one prompt."""
    torch.set_num_threads(threads)
    sam3, image_size = named(model_size)
    model = build_model({"sam3": sam3})
    initialise(model, 0)
    segmenter = Segmenter(model.eval(), PromptTokenizer.from_installed(), image_size, Decision())
    batches = {count: made_rows(images, count, size) for count in prompts}
    seconds: dict[int, list[float]] = {count: [] for count in prompts}
    for number in range(rounds + 1):
        for count, batch in batches.items():
            begun = time.perf_counter()
            pictures = [decode_image(row["image"], segmenter.image_size) for row in batch]
            found = Found()
            evaluate_batch(segmenter, batch, pictures, Asked("after"), found)
            if number:  # the first round warms up
                seconds[count].append((time.perf_counter() - begun) / images)
            if len(found.rows) != count * images:
                msg = f"expected {count * images} rows, found {len(found.rows)}"
                raise AssertionError(msg)
    base = seconds[prompts[0]]
    ratios = {k: [one / first for one, first in zip(values, base, strict=True)] for k, values in seconds.items()}
    return {
        "model_size": model_size,
        "images_a_batch": images,
        "picture_px": size,
        "threads": threads,
        "rounds": rounds,
        "ms_an_image": {k: round(1000 * statistics.median(values), 2) for k, values in seconds.items()},
        "times_one_prompt": {k: round(statistics.median(values), 3) for k, values in ratios.items()},
        "quartiles": {
            k: [round(float(one), 3) for one in np.percentile(values, [25, 75])] for k, values in ratios.items()
        },
    }


def main(arguments: list[str] | None = None) -> int:
    """Command line: one JSON document."""
    parser = argparse.ArgumentParser(prog="python -m training.bench.prompts_cost", description=__doc__)
    parser.add_argument("--model-size", default="small", help="tiny, small, full, or a width of the full model")
    parser.add_argument("--prompts", type=int, nargs="+", default=[1, 2, 3, 4], help="the first is the measure")
    parser.add_argument("--images", type=int, default=8, help="of a batch")
    parser.add_argument("--size", type=int, default=512, help="pixels a side of the pictures")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(arguments)
    figures = measure(given.model_size, given.prompts, given.images, given.size, given.rounds, given.threads)
    sys.stdout.write(json.dumps(figures, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
