"""THE contract: what a shard row, a manifest row, a case row and a quarantine row say.

One shard row is one 2D sample: a whole image, a tile, or one slice of a volume. Lengths are in
pixels or millimetres as the name says; axis order is in the name (`_yx`, `_zyx`, `_xyxy`).

A dataset version is a folder

    shard-00000.parquet …   rows with payload (`SHARD_SCHEMA`)
    manifest.parquet        every row without payload, plus shard and row number (`MANIFEST_SCHEMA`)
    cases.parquet           per volume or image: the way back to the original grid (`CASES_SCHEMA`)
    quarantine.parquet      what was refused, and why (`QUARANTINE_SCHEMA`)
    hashes.parquet          per picture and volume: what finds it again elsewhere (`HASHES_SCHEMA`)
    fingerprint.json        sizes, spacings, intensities, objects as histograms (`preprocessing.fingerprint`)
    concepts.json           concept -> {"prompts": [canonical, synonyms…], "parent": …}
    dataset.json            name, modality, licence, counts, digests, shard SHA-256; written last,
                            so that its presence says the version is complete
    card.html               the same for people

This package needs only pyarrow and numpy, and Pillow for pictures: the training core reads shards through
it on machines that have little else.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

SCHEMA_VERSION = "1"
DIGEST_BYTES = 16

OBJECT = pa.struct(
    [
        pa.field("concept", pa.string(), nullable=False),
        pa.field("instance", pa.int32(), nullable=False),  # 1, 2, … within (sample, concept)
        pa.field("rle", pa.string(), nullable=False),  # COCO compressed `counts`; size is the row's (height, width)
        pa.field("bbox_xyxy", pa.list_(pa.int32()), nullable=False),  # pixels, x1 and y1 exclusive
        pa.field("area", pa.int64(), nullable=False),  # pixels
    ]
)
SOURCE_FILE = pa.struct(
    [pa.field("file", pa.string(), nullable=False), pa.field("sha256", pa.string(), nullable=False)]
)

_IDENTITY = [
    pa.field("sample_id", pa.string(), nullable=False),
    pa.field("dataset", pa.string(), nullable=False),
    pa.field("case_id", pa.string(), nullable=False),
    pa.field("group_id", pa.string(), nullable=False),
    pa.field("modality", pa.string(), nullable=False),
    pa.field("split", pa.string(), nullable=False),
    pa.field("axis", pa.string()),  # axis of the harmonized volume that was cut: "z", "y" or "x"; null for 2D
    pa.field("slice_index", pa.int32()),
    pa.field("height", pa.int32(), nullable=False),
    pa.field("width", pa.int32(), nullable=False),
    pa.field("spacing_mm_yx", pa.list_(pa.float64())),  # two values; pyarrow reads no null of a fixed-size list back
]
_PAYLOAD = [
    pa.field("image", pa.binary(), nullable=False),
]
_LABELS = [
    pa.field("image_format", pa.string(), nullable=False),  # "jpeg" or one of `pixels.CODECS`
    pa.field("objects", pa.list_(OBJECT), nullable=False),
    pa.field("absent", pa.list_(pa.string()), nullable=False),
    pa.field("source", pa.list_(SOURCE_FILE), nullable=False),
    pa.field("content_sha256", pa.string(), nullable=False),
    # The first 16 bytes of a SHA-256 each, so that two versions of a row are told apart without its masks, at no
    # more than what `content_sha256` costs: of shape and decoded pixels, and of objects and absent concepts.
    # Null where a build before there were any wrote the row.
    pa.field("pixels_digest", pa.binary(DIGEST_BYTES)),
    pa.field("labels_digest", pa.binary(DIGEST_BYTES)),
    pa.field("recipe_sha256", pa.string(), nullable=False),
]
_METADATA = {b"segfoundry_schema": SCHEMA_VERSION.encode()}

SHARD_SCHEMA = pa.schema([*_IDENTITY, *_PAYLOAD, *_LABELS], metadata=_METADATA)
MANIFEST_SCHEMA = pa.schema(
    [
        *_IDENTITY,
        *_LABELS,
        pa.field("shard", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
    ],
    metadata=_METADATA,
)
CASES_SCHEMA = pa.schema(
    [
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("case_id", pa.string(), nullable=False),
        pa.field("group_id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("dimensions", pa.int8(), nullable=False),  # 2 or 3
        pa.field("original_size_xyz", pa.list_(pa.int32()), nullable=False),
        pa.field("original_spacing_mm_xyz", pa.list_(pa.float64())),
        pa.field("original_origin_mm_xyz", pa.list_(pa.float64())),
        pa.field("original_direction", pa.list_(pa.float64())),  # row-major cosines, LPS, as SimpleITK gives them
        pa.field("original_orientation", pa.string()),  # e.g. "RAS"; null for 2D
        pa.field("harmonized_size_xyz", pa.list_(pa.int32()), nullable=False),
        pa.field("harmonized_spacing_mm_xyz", pa.list_(pa.float64())),
        pa.field("harmonized_origin_mm_xyz", pa.list_(pa.float64())),
        pa.field("harmonized_direction", pa.list_(pa.float64())),
        pa.field("intensity", pa.string(), nullable=False),  # JSON: rule and the numbers it used, enough to invert it
        # voxels per concept on the original grid, as the source label says: JSON {concept: count}
        pa.field("source_voxels", pa.string(), nullable=False),
        pa.field("agreement", pa.string()),  # JSON: several annotators, Dice of each against the chosen truth
        pa.field("samples", pa.int32(), nullable=False),
        # JSON: signs of what a person should look at, e.g. {"burned_in_text": ["class", "pixels"]}; null: no
        # sign was found, or none was looked for, which is no promise that there is nothing
        pa.field("review", pa.string()),
    ],
    metadata=_METADATA,
)
QUARANTINE_SCHEMA = pa.schema(
    [
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("case_id", pa.string(), nullable=False),
        pa.field("file", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("expected", pa.string(), nullable=False),
        pa.field("found", pa.string(), nullable=False),
    ],
    metadata=_METADATA,
)

# Derived from the shards alone, and therefore no part of the manifest or its digest.
HASHES_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),  # a sample_id; of a volume `dataset/case_id`
        pa.field("case_id", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),  # "picture", "slice" or "volume"
        pa.field("pixels_sha256", pa.string()),  # shape and decoded pixels without labels; null for a volume
        # 128 bits that survive JPEG, resizing, flips and another window (`preprocessing.harmonize.look`);
        # null where there is nothing to see, so that one black slice is no twin of another
        pa.field("code", pa.binary()),
        pa.field("mean", pa.float32()),  # grey levels, over the picture
        pa.field("contrast", pa.float32()),  # standard deviation, grey levels
    ],
    metadata=_METADATA,
)

SPLITS = ("train", "val", "test")
DATASET_FILE = "dataset.json"
MANIFEST_FILE = "manifest.parquet"
CASES_FILE = "cases.parquet"
QUARANTINE_FILE = "quarantine.parquet"
HASHES_FILE = "hashes.parquet"
FINGERPRINT_FILE = "fingerprint.json"
CONCEPTS_FILE = "concepts.json"
CARD_FILE = "card.html"

# Where the rows lie is not part of what they say, and digests of other columns say nothing more.
_NOT_SAID = ("shard", "row", "pixels_digest", "labels_digest")


def manifest_digest(manifest: pa.Table) -> str:
    """SHA-256 of what a manifest says: rows sorted by `sample_id`, without shard, row number and short digests.

    The identity that audits quote; Parquet bytes differ by writer version, this does not.
    """
    digest = hashlib.sha256(SCHEMA_VERSION.encode())
    kept = manifest.drop_columns([name for name in _NOT_SAID if name in manifest.column_names])
    for batch in kept.sort_by("sample_id").to_batches(max_chunksize=4096):
        for row in batch.to_pylist():
            digest.update(json.dumps(row, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode())
            digest.update(b"\n")
    return digest.hexdigest()


def read_dataset_file(folder: Path) -> dict[str, Any]:
    """The `dataset.json` of a dataset version; FileNotFoundError where the version is not complete."""
    value: dict[str, Any] = json.loads((folder / DATASET_FILE).read_text(encoding="utf-8"))
    return value


def read_manifest(folder: Path) -> pa.Table:
    """The manifest of one dataset version."""
    return pq.read_table(folder / MANIFEST_FILE, schema=MANIFEST_SCHEMA)


def read_concepts(folder: Path) -> dict[str, dict[str, Any]]:
    """Concept -> {"prompts": [canonical, synonyms…]} of one dataset version."""
    value: dict[str, dict[str, Any]] = json.loads((folder / CONCEPTS_FILE).read_text(encoding="utf-8"))
    return value
