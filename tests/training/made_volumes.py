"""Dataset versions of volumes in the contract's form, with rows and shards in any order."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from preprocessing import schema
from preprocessing.schema import rle


@dataclass
class Case:
    """One volume: pixels (slices, height, width[, 3]) uint8, masks of concepts on the same grid."""

    name: str
    pixels_zyx: np.ndarray
    masks_zyx: dict[str, np.ndarray] = field(default_factory=dict)
    split: str = "train"
    left_out: tuple[int, ...] = ()  # slices that have no row
    axis: str | None = "z"  # None: its slices are 2D pictures


def rows_of_case(dataset: str, case: Case, concepts: list[str]) -> list[dict[str, Any]]:
    rows = []
    for number, pixels in enumerate(case.pixels_zyx):
        if number in case.left_out:
            continue
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, format="PNG")
        objects = [
            {
                "concept": concept,
                "instance": 1,
                "rle": rle.encode(mask[number]),
                "bbox_xyxy": list(rle.bbox_xyxy(mask[number])),
                "area": int(mask[number].sum()),
            }
            for concept, mask in sorted(case.masks_zyx.items())
            if mask[number].any()
        ]
        rows.append(
            {
                "sample_id": f"{dataset}/{case.name}/{case.axis}{number:04d}",
                "dataset": dataset,
                "case_id": case.name,
                "group_id": case.name,
                "modality": "CT",
                "split": case.split,
                "axis": case.axis,
                "slice_index": None if case.axis is None else number,
                "height": pixels.shape[0],
                "width": pixels.shape[1],
                "spacing_mm_yx": [1.0, 1.0],
                "image": buffer.getvalue(),
                "image_format": "png",
                "objects": objects,
                "absent": sorted(set(concepts) - {item["concept"] for item in objects}),
                "source": [],
                "content_sha256": f"{dataset}{case.name}{number}",
                "recipe_sha256": "r",
            }
        )
    return rows


def write_volumes(
    root: Path, dataset: str, cases: list[Case], *, rows_a_shard: int = 1000, rows_a_group: int = 64, seed: int = -1
) -> Path:
    """Write the cases as one dataset version; with a `seed` from 0 on the rows lie in a random order."""
    concepts = sorted({concept for case in cases for concept in case.masks_zyx})
    rows = [row for case in cases for row in rows_of_case(dataset, case, concepts)]
    if seed >= 0:
        rows = [rows[number] for number in np.random.default_rng(seed).permutation(len(rows))]
    folder = root / dataset
    folder.mkdir(parents=True)
    listed, manifest = {}, []
    for number, begin in enumerate(range(0, len(rows), rows_a_shard)):
        part = rows[begin : begin + rows_a_shard]
        file = folder / f"shard-{number:05d}.parquet"
        pq.write_table(pa.Table.from_pylist(part, schema=schema.SHARD_SCHEMA), file, row_group_size=rows_a_group)
        listed[file.name] = {"sha256": hashlib.sha256(file.read_bytes()).hexdigest(), "rows": len(part)}
        manifest += [
            {**{key: value for key, value in row.items() if key != "image"}, "shard": file.name, "row": at}
            for at, row in enumerate(part)
        ]
    table = pa.Table.from_pylist(manifest, schema=schema.MANIFEST_SCHEMA)
    pq.write_table(table, folder / schema.MANIFEST_FILE)
    (folder / schema.CONCEPTS_FILE).write_text(json.dumps({concept: {"prompts": [concept]} for concept in concepts}))
    record = {
        "dataset": dataset,
        "modality": "CT",
        "manifest_digest": schema.manifest_digest(table),
        "splits": {split: sum(row["split"] == split for row in rows) for split in schema.SPLITS},
        "shards": listed,
    }
    (folder / schema.DATASET_FILE).write_text(json.dumps(record))
    return folder


def counted(slices: int, first: int = 10, height: int = 24, width: int = 40) -> np.ndarray:
    """Slices that tell their own number everywhere, uint8."""
    return np.broadcast_to(np.arange(first, first + slices, dtype=np.uint8)[:, None, None], (slices, height, width))
