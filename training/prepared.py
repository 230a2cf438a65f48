"""Shards made ready for training once: decoded, resized, memory-mapped.

Decoding a 5-megapixel picture and its masks for every visit would cost more than a tiny model's step,
so each shard is turned once into fixed-size arrays beside the run, keyed by the shard's own SHA-256
and the sizes. Opening checks the shard against the dataset's record first: DVC delivers corrupt
bytes without a word.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from infra.errors import DataError
from preprocessing import schema
from preprocessing.schema import rle
from preprocessing.schema.pixels import MissingCodecError, open_picture

Pixels = NDArray[np.uint8]
_FORMAT = "2"


@dataclass(frozen=True)
class ShardFile:
    """One shard of a dataset version and what its record says of it."""

    dataset: str
    path: Path
    sha256: str


def shards_of(data_root: Path, dataset: str) -> list[ShardFile]:
    """The shards of one dataset version; DataError where the version is not complete."""
    folder = data_root / dataset
    try:
        record = schema.read_dataset_file(folder)
    except FileNotFoundError as error:
        msg = (
            f"{dataset}: expected a complete dataset version in {folder}, found no {schema.DATASET_FILE}. "
            f"Run `segfoundry data ingest {dataset}`"
        )
        raise DataError(msg) from error
    return [ShardFile(dataset, folder / name, entry["sha256"]) for name, entry in sorted(record["shards"].items())]


def check_shard(shard: ShardFile) -> None:
    """DataError that names the shard where its bytes are not what the dataset's record says."""
    found = "no file"
    if shard.path.is_file():
        with shard.path.open("rb") as handle:
            found = hashlib.file_digest(handle, "sha256").hexdigest()
    if found != shard.sha256:
        msg = (
            f"{shard.dataset}: {shard.path.name}: expected SHA-256 {shard.sha256}, found {found}. "
            f"The shard is damaged: delete it and run `dvc checkout --force`, or ingest {shard.dataset} again"
        )
        raise DataError(msg)


def decode_image(payload: bytes, size: int | None = None) -> Pixels:
    """Encoded pixels to (height, width, channels) uint8; resized to (size, size) with antialiasing."""
    with _opened(payload) as image:
        if size is not None:
            image.draft(image.mode, (size, size))  # JPEG: decode at a reduced size that is still large enough
            picture = image if image.mode in ("L", "RGB") else image.convert("RGB")
            array = np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR))
        else:
            array = np.asarray(image if image.mode in ("L", "RGB") else image.convert("RGB"))
    return array[..., None] if array.ndim == 2 else array


def _opened(payload: bytes) -> Image.Image:
    try:
        return open_picture(payload)
    except MissingCodecError as error:
        raise DataError(str(error)) from error


def coverage(mask: NDArray[np.bool_], size: int) -> Pixels:
    """Share of each cell that a mask covers, 0..255, on a (size, size) grid."""
    picture = Image.fromarray(mask.astype(np.uint8) * 255, mode="L")
    return np.asarray(picture.resize((size, size), Image.Resampling.BOX))


@dataclass(frozen=True)
class Part:
    """Every `of`-th row of a split, from row `number` on: how several processes share a large shard."""

    number: int = 0
    of: int = 1


def rows_of(shard: ShardFile, split: str | None = None, part: Part | None = None) -> Iterator[dict[str, Any]]:
    """Rows of a shard (of one split, where named), one row group in memory at a time."""
    seen = 0
    with pq.ParquetFile(shard.path) as file:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group)
            if split is not None:
                table = table.filter(pc.equal(table.column("split"), split))
            if part is not None:
                first = (part.number - seen) % part.of
                seen += table.num_rows
                table = table.take(np.arange(first, table.num_rows, part.of))
            yield from table.to_pylist()


def objects_by_concept(row: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """A row's objects grouped by concept, largest first."""
    grouped: dict[str, list[dict[str, Any]]] = {}
    for item in row["objects"]:
        grouped.setdefault(item["concept"], []).append(item)
    for items in grouped.values():
        items.sort(key=lambda item: (-item["area"], item["instance"]))
    return grouped


def prepare_shard(
    shard: ShardFile, split: str, out: Path, *, image_size: int, mask_size: int, max_instances: int
) -> Path:
    """Write the prepared arrays of one shard's split (idempotent, atomic); return their folder."""
    key = hashlib.sha256(
        json.dumps([_FORMAT, shard.sha256, split, image_size, mask_size, max_instances]).encode()
    ).hexdigest()[:24]
    folder = out / key
    if (folder / "index.json").is_file():
        return folder
    check_shard(shard)
    images: list[Pixels] = []
    maps: list[Pixels] = []
    instances: list[Pixels] = []
    index: list[dict[str, Any]] = []
    for row in rows_of(shard, split):
        height, width = row["height"], row["width"]
        concepts: dict[str, list[int]] = {}
        for concept, items in objects_by_concept(row).items():
            union = np.zeros((height, width), dtype=bool)
            first = len(instances)
            for number, item in enumerate(items):
                mask = rle.decode(item["rle"], height, width)
                union |= mask
                if number < max_instances:
                    cover = coverage(mask, mask_size)
                    # a structure thinner than a cell never covers half of one: scale it up to be seen
                    peak = int(cover.max())
                    instances.append((cover * (255.0 / peak)).astype(np.uint8) if 0 < peak < 128 else cover)
            concepts[concept] = [len(maps), first, len(instances)]
            maps.append(coverage(union, image_size))
        images.append(decode_image(row["image"], image_size))
        index.append(
            {
                "sample_id": row["sample_id"],
                "dataset": row["dataset"],
                "modality": row["modality"],
                "concepts": concepts,
                "absent": row["absent"],
            }
        )
    _write(folder, images, maps, instances, index, image_size, mask_size)
    return folder


def _write(
    folder: Path,
    images: list[Pixels],
    maps: list[Pixels],
    instances: list[Pixels],
    index: list[dict[str, Any]],
    image_size: int,
    mask_size: int,
) -> None:
    temporary = folder.with_name(f"{folder.name}.{os.getpid()}.part-tmp")
    temporary.mkdir(parents=True, exist_ok=True)
    channels = 3 if any(image.shape[-1] == 3 for image in images) else 1
    stack = np.zeros((len(images), image_size, image_size, channels), dtype=np.uint8)
    for number, image in enumerate(images):
        stack[number] = image
    np.save(temporary / "images.npy", stack)
    np.save(temporary / "maps.npy", np.stack(maps) if maps else np.zeros((0, image_size, image_size), np.uint8))
    np.save(
        temporary / "instances.npy", np.stack(instances) if instances else np.zeros((0, mask_size, mask_size), np.uint8)
    )
    (temporary / "index.json").write_text(json.dumps(index))
    try:
        temporary.rename(folder)
    except OSError:
        # another rank was faster with the same bytes
        if not (folder / "index.json").is_file():
            raise
        for path in temporary.iterdir():
            path.unlink()
        temporary.rmdir()


class PreparedSamples:
    """Random access to the prepared samples of several datasets, memory-mapped."""

    def __init__(self, folders_by_dataset: dict[str, list[Path]]) -> None:
        self.entries: list[tuple[dict[str, Any], int, int]] = []
        self.sizes: list[int] = []
        self.datasets: list[str] = []
        self._arrays: list[tuple[Pixels, Pixels, Pixels]] = []
        for dataset, folders in folders_by_dataset.items():
            before = len(self.entries)
            for folder in folders:
                index = json.loads((folder / "index.json").read_text())
                images, maps, instances = (
                    np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("images", "maps", "instances")
                )
                self._arrays.append((images, maps, instances))
                self.entries.extend((entry, len(self._arrays) - 1, row) for row, entry in enumerate(index))
            if len(self.entries) > before:
                self.datasets.append(dataset)
                self.sizes.append(len(self.entries) - before)

    def __len__(self) -> int:
        return len(self.entries)

    def image(self, index: int) -> Pixels:
        """(size, size, channels) uint8."""
        _, part, row = self.entries[index]
        pixels: Pixels = self._arrays[part][0][row]
        return pixels

    def concept(self, index: int, concept: str) -> tuple[Pixels, Pixels]:
        """Coverage of the union (size, size) and of each instance (instances, mask size, mask size), 0..255."""
        entry, part, _ = self.entries[index]
        semantic, first, last = entry["concepts"][concept]
        return self._arrays[part][1][semantic], self._arrays[part][2][first:last]
