"""Shards made ready for training once: decoded, resized, memory-mapped.

Decoding a 5-megapixel picture and its masks for every visit would cost more than a tiny model's step,
so each shard is turned once into fixed-size arrays beside the run, keyed by the shard's own SHA-256
and the sizes. At full size such copies would fill disks: there `shard_samples.py` reads the shards themselves.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from infra.errors import DataError
from infra.storage import digest_of
from preprocessing.schema import rle
from training.decode import Pixels, coverage, decode_image, instance_coverage
from training.neighbours import beside, numbered, stacked
from training.order import GlobalOrder, order_of
from training.prompting import promptable
from training.recipes import Recipe
from training.store import ShardFile, ShardStore, check_shard, digest_of_shards, shards_of

__all__ = ["PreparedSamples", "ShardFile", "check_shard", "coverage", "decode_image", "prepare_shard", "shards_of"]

_FORMAT = "3"


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
    shard: ShardFile,
    split: str,
    out: Path,
    *,
    image_size: int,
    mask_size: int,
    max_instances: int,
    preprocessing: str = "pillow",
    store: ShardStore | None = None,
) -> Path:
    """Write the prepared arrays of one shard's split (idempotent, atomic); return their folder.

    `store` brings the shard from where it lies; without one it is a local file.
    """
    other = [] if preprocessing == "pillow" else [preprocessing]
    key = hashlib.sha256(
        json.dumps([_FORMAT, shard.sha256, split, image_size, mask_size, max_instances, *other]).encode()
    ).hexdigest()[:24]
    folder = out / key
    if (folder / "index.json").is_file():
        return folder
    if store is not None:
        shard = replace(shard, path=store.path(shard))
    else:
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
                    instances.append(instance_coverage(mask, mask_size))
            concepts[concept] = [len(maps), first, len(instances)]
            maps.append(coverage(union, image_size))
        images.append(decode_image(row["image"], image_size, preprocessing))
        cut = row["slice_index"] is not None and images[-1].shape[-1] == 1
        index.append(
            {
                "sample_id": row["sample_id"],
                "dataset": row["dataset"],
                "modality": row["modality"],
                "concepts": concepts,
                "absent": row["absent"],
                # where a grey slice lies in its volume; null for what has no neighbours
                "slice": [row["case_id"], row["axis"], row["slice_index"]] if cut else None,
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

    def __init__(self, folders_by_dataset: dict[str, list[Path]], shards: list[ShardFile] | None = None) -> None:
        """`shards` are those that the folders were made of: they tell one state of the data from another."""
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
        self.digest = digest_of_shards(shards or [])
        self._order: GlobalOrder | None = None
        self._asked: list[int] = []  # samples that can be asked for something, as the recipe asks
        self._beside: NDArray[np.int64] | None = None  # entries below and above each, where the recipe wants them

    def __len__(self) -> int:
        return len(self.entries)

    def follow(self, recipe: Recipe) -> dict[str, Any]:
        """Take the recipe's order; return what decides it."""
        self._asked = promptable([entry for entry, _, _ in self.entries], recipe)
        if not self._asked:
            msg = "training: expected samples with a concept to ask for, found none in the train splits"
            raise DataError(msg)
        self._beside = self._neighbours(recipe.neighbours) if recipe.neighbours else None
        dataset_of = np.repeat(np.arange(len(self.sizes)), self.sizes)[self._asked]
        self._order = order_of([int(size) for size in np.bincount(dataset_of) if size], recipe)
        return {"stream": "prepared", "seed": recipe.seed, "quota": digest_of(self._order.quota)[:16]}

    def at(self, position: int) -> PreparedSample:
        """The sample at a global position; `follow` comes first."""
        assert self._order is not None
        return PreparedSample(self, self._asked[self._order[position]])

    def image(self, index: int) -> Pixels:
        """(size, size, channels) uint8; of a slice with its neighbours where the recipe wants them."""
        if self._beside is None or self.entries[index][0]["slice"] is None:
            return self._stored(index)
        below, above = self._beside[index].tolist()
        return stacked(self._stored(below), self._stored(index), self._stored(above))

    def _stored(self, index: int) -> Pixels:
        _, part, row = self.entries[index]
        pixels: Pixels = self._arrays[part][0][row]
        return pixels

    def _neighbours(self, step: int) -> NDArray[np.int64]:
        cuts = [(entry["dataset"], entry["slice"]) for entry, _, _ in self.entries]
        volumes = numbered([None if cut is None else (dataset, *cut[:2]) for dataset, cut in cuts])
        return beside(volumes, np.array([0 if cut is None else cut[2] for _, cut in cuts], dtype=np.int64), step)

    def concept(self, index: int, concept: str) -> tuple[Pixels, Pixels]:
        """Coverage of the union (size, size) and of each instance (instances, mask size, mask size), 0..255."""
        entry, part, _ = self.entries[index]
        semantic, first, last = entry["concepts"][concept]
        return self._arrays[part][1][semantic], self._arrays[part][2][first:last]


class PreparedSample:
    """One sample of `PreparedSamples`."""

    def __init__(self, samples: PreparedSamples, index: int) -> None:
        self._samples, self._index = samples, index
        entry = samples.entries[index][0]
        self.sample_id: str = entry["sample_id"]
        self.dataset: str = entry["dataset"]
        self.modality: str = entry["modality"]
        self.concepts: list[str] = sorted(entry["concepts"])
        self.absent: list[str] = sorted(entry["absent"])

    def image(self) -> Pixels:
        """(size, size, channels) uint8."""
        return self._samples.image(self._index)

    def concept(self, concept: str) -> tuple[Pixels, Pixels]:
        """Coverage of the union and of each instance, as of `PreparedSamples.concept`."""
        return self._samples.concept(self._index, concept)
