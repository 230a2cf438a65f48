"""Complete dataset versions from rows that a test writes down, without a build."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from infra.storage import write_bytes, write_json
from preprocessing import schema, shards
from preprocessing.harmonize import geometry, slices

Mask = np.ndarray[Any, Any]


def row(
    case: str,
    pixels: np.ndarray[Any, Any],
    masks: dict[str, list[Mask]],
    absent: tuple[str, ...] = (),
    split: str = "train",
    **changes: Any,
) -> dict[str, Any]:
    """A row of dataset `made`; `masks`: concept -> one mask an instance."""
    objects = [item for concept, parts in sorted(masks.items()) for item in slices.objects_of(concept, parts)]
    made = slices.sample_row(sample_id=f"made/{case}", pixels=pixels, objects=objects, absent=list(absent))
    return {
        **made,
        "dataset": "made",
        "case_id": case,
        "group_id": f"g-{case}",
        "modality": "ultrasound",
        "split": split,
        "source": [{"file": f"{case}.png", "sha256": "0" * 64}, {"file": f"{case}_mask.png", "sha256": "1" * 64}],
        "recipe_sha256": "2" * 64,
        **changes,
    }


def version(folder: Path, rows: list[dict[str, Any]], cases: list[dict[str, Any]] | None = None) -> Path:
    """Write rows as a complete version of pictures, or of what `cases` says about them."""
    folder.mkdir(parents=True)
    table = shards.table_of(rows, schema.SHARD_SCHEMA).sort_by("sample_id")
    name = shards.shard_name(0)
    digest = shards.write_if_changed(folder / name, shards.parquet_bytes(table))
    manifest = table.drop_columns(["image"])
    manifest = manifest.append_column(schema.MANIFEST_SCHEMA.field("shard"), pa.array([name] * len(rows), pa.string()))
    manifest = manifest.append_column(schema.MANIFEST_SCHEMA.field("row"), pa.array(range(len(rows)), pa.int64()))
    write_bytes(folder / schema.MANIFEST_FILE, shards.parquet_bytes(manifest.cast(schema.MANIFEST_SCHEMA)))
    told = cases or [
        {
            "dataset": "made",
            "case_id": one["case_id"],
            "group_id": one["group_id"],
            "split": one["split"],
            **geometry.flat_columns(one["height"], one["width"]),
            "intensity": "{}",
            "source_voxels": "{}",
            "samples": 1,
        }
        for one in rows
    ]
    write_bytes(folder / schema.CASES_FILE, shards.parquet_bytes(shards.table_of(told, schema.CASES_SCHEMA)))
    concepts = sorted(
        {item["concept"] for one in rows for item in one["objects"]} | {c for r in rows for c in r["absent"]}
    )
    write_json(folder / schema.CONCEPTS_FILE, {one: {"prompts": [one, f"a {one}"], "parent": None} for one in concepts})
    report = {
        "dataset": "made",
        "title": "Made up",
        "modality": "ultrasound",
        "licence": {"terms": "for tests only", "redistribution": "no"},
        "citation": "nobody, nowhere",
        "manifest_digest": schema.manifest_digest(manifest),
        "recipe_sha256": "2" * 64,
        "shards": {name: {"sha256": digest, "rows": len(rows)}},
    }
    write_json(folder / schema.DATASET_FILE, report)
    return folder
