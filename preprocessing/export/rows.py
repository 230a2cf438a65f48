"""Rows of a dataset version, shard by shard and checked, and names for their files."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from infra.errors import DataError
from infra.storage import sha256_file
from preprocessing import schema
from preprocessing.harmonize.payload import decode, png

_ROWS_A_BATCH = 32
# File systems take 255 bytes; a suffix, an ending and what a tool appends must fit too.
_LONGEST_NAME = 180


def rows_of(folder: Path, split: str = "") -> Iterator[dict[str, Any]]:
    """Every row with payload, by shard and sample id; DataError where a shard is not what `dataset.json` says."""
    report = schema.read_dataset_file(folder)
    for name, shard in sorted(report["shards"].items()):
        if sha256_file(folder / name) != shard["sha256"]:
            msg = (
                f"{report['dataset']}: {name}: expected the shard that {schema.DATASET_FILE} names, found other bytes. "
                f"Make it again: segfoundry data ingest {report['dataset']}"
            )
            raise DataError(msg)
        with pq.ParquetFile(folder / name) as file:
            for batch in file.iter_batches(batch_size=_ROWS_A_BATCH):
                for row in batch.to_pylist():
                    if not split or row["split"] == split:
                        yield row


def file_keys(identifiers: Iterable[str]) -> dict[str, str]:
    """Identifier -> a name that is safe as a file of any system and as a WebDataset key, never two the same.

    `/` becomes `__` and all but letters, digits, dash and underscore becomes `_` (a WebDataset key ends at
    the first dot). Where two names would then differ in nothing but the case of letters, or would be too
    long, eight digits of the identifier's hash follow.
    """
    plain = {one: re.sub(r"[^A-Za-z0-9_-]", "_", one.replace("/", "__")) for one in identifiers}
    seen = Counter(name.lower() for name in plain.values())
    return {
        one: name if seen[name.lower()] == 1 and len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}-{_short(one)}"
        for one, name in plain.items()
    }


def picture_file(row: dict[str, Any]) -> tuple[str, bytes]:
    """A row's picture as a file that any tool opens: its ending, and its bytes.

    JPEG and PNG are the payload, byte for byte; what is stored otherwise becomes PNG with the same pixels.
    """
    if row["image_format"] == "jpeg":
        return "jpg", row["image"]
    return "png", row["image"] if row["image_format"] == "png" else png(decode(row["image"]))


def known_concepts(row: dict[str, Any]) -> set[str]:
    """The concepts that a row knows about: marked, or searched for and absent. All others are unknown."""
    return {item["concept"] for item in row["objects"]} | set(row["absent"])


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
