"""The rows of a dataset version in other people's formats: COCO (as the SAM3 trainer reads it), nnU-Net v2, WebDataset.

Payloads are copied byte for byte wherever the format takes them (COCO, WebDataset); nnU-Net wants PNG or
NIfTI, whose decoded pixels are the payload's. Masks are the rows' masks, pixel for pixel.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from infra.errors import UsageError
from infra.storage import staged_folder, write_text
from preprocessing import schema
from preprocessing.export import coco, nnunet, webdataset
from preprocessing.export.terms import LICENCE_FILE, terms

FORMATS = ("coco", "nnunet", "webdataset")


def export(
    folder: Path,
    target: Path,
    kind: str,
    split: str = "",
    *,
    separate_instances: bool = False,
    shard_bytes: int = webdataset.SHARD_BYTES,
    dimensions: int = 0,
) -> dict[str, Any]:
    """Write the version in `folder` (one split, or all) to the new folder `target`, and the licence with it.

    `separate_instances`: whether each object is one instance (the card's rule), which the SA-Co files of
    "coco" say. `shard_bytes` bounds the tars of "webdataset". `dimensions` 2 or 3 picks the pictures or the
    volumes of a version that has both, for "nnunet". Returns {"format", "samples", "objects", "files", "notes"}.

    Everything is written to a temporary folder beside `target`, which is then renamed. Raises UsageError for
    another format or split or a `target` that is not empty, DataError where a shard is not the one that
    `dataset.json` names.
    """
    if kind not in FORMATS:
        msg = f"--format: expected one of {', '.join(FORMATS)}, found {kind!r}"
        raise UsageError(msg)
    if split and split not in schema.SPLITS:
        msg = f"--split: expected one of {', '.join(schema.SPLITS)}, found {split!r}"
        raise UsageError(msg)
    if kind == "nnunet":
        nnunet.check_name(target)
    with staged_folder(target) as staging:
        if kind == "coco":
            done = coco.write(folder, staging, split, separate_instances=separate_instances)
        elif kind == "nnunet":
            done = nnunet.write(folder, staging, split, dimensions=dimensions)
        else:
            done = webdataset.write(folder, staging, split, shard_bytes=shard_bytes)
        write_text(staging / LICENCE_FILE, terms(schema.read_dataset_file(folder)))
    return {"format": kind, **done, "files": sorted([*done["files"], LICENCE_FILE])}
