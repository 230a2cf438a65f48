"""WebDataset tars: `<key>.png` or `.jpg` beside `<key>.json` with all other columns of the row, bytes as hex digits.

The payload is the shard's, byte for byte, where that is JPEG or PNG, else PNG with its pixels; so is every
figure of the JSON. Tars hold no times, owners or modes of this machine, so that equal versions give equal bytes.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from infra.storage import write_json
from preprocessing import schema
from preprocessing.export.rows import file_keys, picture_file, rows_of

SHARD_BYTES = 256 * 2**20
INDEX_FILE = "index.json"


def write(folder: Path, target: Path, split: str = "", *, shard_bytes: int = SHARD_BYTES) -> dict[str, Any]:
    """Write `<split>-<number>.tar` of about `shard_bytes` bytes at most, and `index.json` with samples a tar."""
    keys = file_keys(schema.read_manifest(folder).column("sample_id").to_pylist())
    index: dict[str, dict[str, Any]] = {}
    objects = 0
    for part in (split,) if split else schema.SPLITS:
        samples = _members(folder, part, keys)
        pending = next(samples, None)
        number = 0
        while pending is not None:
            name = f"{part}-{number:05d}.tar"
            count = written = 0
            # PAX: names longer than 100 characters; shorter ones give plain USTAR headers
            with tarfile.open(target / name, "w", format=tarfile.PAX_FORMAT) as tar:
                while pending is not None and (count == 0 or written + pending[1] <= shard_bytes):
                    for member, payload in pending[0]:
                        _add(tar, member, payload)
                    count, written, objects = count + 1, written + pending[1], objects + pending[2]
                    pending = next(samples, None)
            index[name] = {"split": part, "samples": count}
            number += 1
    report = schema.read_dataset_file(folder)
    write_json(
        target / INDEX_FILE,
        {"dataset": report["dataset"], "manifest_digest": report["manifest_digest"], "tars": index},
    )
    write_json(target / schema.CONCEPTS_FILE, schema.read_concepts(folder))
    return {
        "samples": sum(one["samples"] for one in index.values()),
        "objects": objects,
        "files": [*index, INDEX_FILE, schema.CONCEPTS_FILE],
        "notes": [],
    }


def _members(folder: Path, split: str, keys: dict[str, str]) -> Iterator[tuple[list[tuple[str, bytes]], int, int]]:
    """For each row its two members, their size in the tar in bytes, and its number of objects."""
    for row in rows_of(folder, split):
        ending, image = picture_file(row)
        del row["image"]
        row["image_format"] = "jpeg" if ending == "jpg" else ending  # what the tar holds, which the shard may not
        key = keys[row["sample_id"]]
        said = json.dumps(row, sort_keys=True, ensure_ascii=False, default=bytes.hex).encode()
        members = [(f"{key}.{ending}", image), (f"{key}.json", said)]
        yield members, sum(512 + -(-len(payload) // 512) * 512 for _, payload in members), len(row["objects"])


def _add(tar: tarfile.TarFile, name: str, payload: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(payload)
    tar.addfile(member, io.BytesIO(payload))
