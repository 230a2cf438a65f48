"""The rows of a dataset version in other people's formats: COCO and WebDataset; pixels are copied as they are."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq

from infra.errors import DataError, UsageError
from infra.storage import atomic_path, sha256_file, write_bytes, write_json
from preprocessing import schema
from preprocessing.schema import rle

Format = Literal["coco", "webdataset"]


def export(folder: Path, target: Path, kind: str, split: str = "") -> dict[str, Any]:
    """Write the version in `folder` (one split, or all) below `target` as "coco" or "webdataset".

    Returns {"format", "samples", "objects", "files"}. Raises UsageError for another format or split,
    DataError where a shard is not the one that `dataset.json` names.
    """
    if kind not in ("coco", "webdataset"):
        msg = f"unknown export format {kind!r}; known: coco, webdataset"
        raise UsageError(msg)
    if split and split not in schema.SPLITS:
        msg = f"unknown split {split!r}; known: {', '.join(schema.SPLITS)}"
        raise UsageError(msg)
    rows = _rows(folder, split)
    return _coco(folder, rows, target) if kind == "coco" else _webdataset(rows, target, split or "all")


def _rows(folder: Path, split: str) -> Iterator[dict[str, Any]]:
    report = schema.read_dataset_file(folder)
    for name, shard in sorted(report["shards"].items()):
        if sha256_file(folder / name) != shard["sha256"]:
            msg = f"{report['dataset']}: {name} is not the shard that {schema.DATASET_FILE} names; fetch the data again"
            raise DataError(msg)
        with pq.ParquetFile(folder / name) as file:
            for batch in file.iter_batches(batch_size=32):
                for row in batch.to_pylist():
                    if not split or row["split"] == split:
                        yield row


def _name(row: dict[str, Any]) -> str:
    """A sample id as a file name; WebDataset ends the key at the first dot."""
    return str(row["sample_id"]).replace("/", "__").replace(".", "_")


def _ending(row: dict[str, Any]) -> str:
    return "jpg" if row["image_format"] == "jpeg" else str(row["image_format"])


def _coco(folder: Path, rows: Iterator[dict[str, Any]], target: Path) -> dict[str, Any]:
    """`images/…` and `annotations.json`; boxes are (x, y, width, height), masks compressed RLE."""
    report = schema.read_dataset_file(folder)
    numbers = {concept: index for index, concept in enumerate(sorted(schema.read_concepts(folder)), start=1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for row in rows:
        file = f"images/{_name(row)}.{_ending(row)}"
        write_bytes(target / file, row["image"])
        images.append(
            {
                "id": len(images) + 1,
                "file_name": file,
                "height": row["height"],
                "width": row["width"],
                "sample_id": row["sample_id"],
                "split": row["split"],
                "absent": [numbers[concept] for concept in row["absent"]],
            }
        )
        for item in row["objects"]:
            x0, y0, x1, y1 = item["bbox_xyxy"]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": len(images),
                    "category_id": numbers[item["concept"]],
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": rle.area(item["rle"]),
                    "iscrowd": 0,
                    "segmentation": {"size": [row["height"], row["width"]], "counts": item["rle"]},
                }
            )
    write_json(
        target / "annotations.json",
        {
            "info": {"description": report["title"], "version": report["manifest_digest"]},
            "licenses": [{"id": 1, "name": report["licence"]["terms"]}],
            "categories": [{"id": number, "name": concept} for concept, number in numbers.items()],
            "images": images,
            "annotations": annotations,
        },
    )
    return {
        "format": "coco",
        "samples": len(images),
        "objects": len(annotations),
        "files": ["annotations.json", "images/"],
    }


def _webdataset(rows: Iterator[dict[str, Any]], target: Path, split: str) -> dict[str, Any]:
    """One tar: `<key>.png` or `.jpg`, and `<key>.json` with the other columns."""
    samples = objects = 0
    path = target / f"{split}-00000.tar"
    with atomic_path(path) as temporary, tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar:
        for row in rows:
            image = row.pop("image")
            _add(tar, f"{_name(row)}.{_ending(row)}", image)
            _add(tar, f"{_name(row)}.json", json.dumps(row, sort_keys=True, ensure_ascii=False).encode())
            samples += 1
            objects += len(row["objects"])
    return {"format": "webdataset", "samples": samples, "objects": objects, "files": [path.name]}


def _add(tar: tarfile.TarFile, name: str, payload: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(payload)
    tar.addfile(member, io.BytesIO(payload))
