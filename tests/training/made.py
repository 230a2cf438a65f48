"""A small dataset version in the contract's form, with bright discs and dark squares as concepts."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from preprocessing import schema
from preprocessing.schema import rle


def picture(seed: int, size: int = 64) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Grey picture and the masks of what is on it: a bright disc, a dark square, or both."""
    draw = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size]
    image = np.full((size, size), 110.0) + draw.normal(0, 8, (size, size))
    masks: dict[str, np.ndarray] = {}
    if seed % 3 != 1:
        y, x, radius = (*draw.integers(16, size - 16, 2).tolist(), int(draw.integers(7, 13)))
        masks["bright disc"] = (rows - y) ** 2 + (columns - x) ** 2 < radius**2
        image[masks["bright disc"]] = 220
    if seed % 3 != 2:
        y, x, half = (*draw.integers(14, size - 14, 2).tolist(), int(draw.integers(5, 10)))
        square = (abs(rows - y) < half) & (abs(columns - x) < half)
        if "bright disc" in masks:
            square &= ~masks["bright disc"]
        masks["dark square"] = square
        image[square] = 20
    return image.clip(0, 255).astype(np.uint8), masks


def write_dataset(
    root: Path,
    name: str,
    count: int,
    first: int = 0,
    splits: tuple[str, ...] = ("train",),
    *,
    shards: int = 1,
    rows_a_group: int = 64,
    size: int = 64,
) -> Path:
    """Write `count` samples of dataset `name` below `root`, splits in turn, rows dealt out to shards of unlike size."""
    rows: list[dict[str, Any]] = []
    for number in range(count):
        image, masks = picture(first + number, size)
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, format="PNG")
        objects = [
            {
                "concept": concept,
                "instance": 1,
                "rle": rle.encode(mask),
                "bbox_xyxy": list(rle.bbox_xyxy(mask)),
                "area": int(mask.sum()),
            }
            for concept, mask in masks.items()
            if mask.any()
        ]
        rows.append(
            {
                "sample_id": f"{name}/{number:03d}",
                "dataset": name,
                "case_id": f"{number:03d}",
                "group_id": f"{number:03d}",
                "modality": "microscopy",
                "split": splits[number % len(splits)],
                "axis": None,
                "slice_index": None,
                "height": image.shape[0],
                "width": image.shape[1],
                "spacing_mm_yx": None,
                "image": buffer.getvalue(),
                "image_format": "png",
                "objects": objects,
                "absent": sorted({"bright disc", "dark square"} - {item["concept"] for item in objects}),
                "source": [],
                "content_sha256": f"{name}{number}",
                "recipe_sha256": "r",
            }
        )
    folder = root / name
    folder.mkdir(parents=True)
    bounds = [count * number * (number + 1) // (shards * (shards + 1)) for number in range(shards + 1)]
    listed: dict[str, dict[str, Any]] = {}
    manifest: list[dict[str, Any]] = []
    for number, (begin, end) in enumerate(itertools.pairwise(bounds)):
        file = folder / f"shard-{number:05d}.parquet"
        table = pa.Table.from_pylist(rows[begin:end], schema=schema.SHARD_SCHEMA)
        pq.write_table(table, file, row_group_size=rows_a_group)
        listed[file.name] = {"sha256": hashlib.sha256(file.read_bytes()).hexdigest(), "rows": end - begin}
        for row, entry in enumerate(rows[begin:end]):
            kept = {key: value for key, value in entry.items() if key != "image"}
            manifest.append({**kept, "shard": file.name, "row": row})
    table = pa.Table.from_pylist(manifest, schema=schema.MANIFEST_SCHEMA)
    pq.write_table(table, folder / schema.MANIFEST_FILE)
    digest = schema.manifest_digest(table)
    (folder / schema.CONCEPTS_FILE).write_text(
        json.dumps({concept: {"prompts": [concept, f"{concept} shape"]} for concept in ("bright disc", "dark square")})
    )
    (folder / schema.DATASET_FILE).write_text(
        json.dumps(
            {
                "dataset": name,
                "modality": "microscopy",
                "manifest_digest": digest,
                "splits": {split: sum(row["split"] == split for row in rows) for split in schema.SPLITS},
                "shards": listed,
            }
        )
    )
    return folder
