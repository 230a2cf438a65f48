"""What changed between two versions of a dataset, sample by sample.

Samples are joined on `sample_id`; joining on the content hash would miss rows that reuse content.
"""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

_COLUMNS = [
    "sample_id",
    "case_id",
    "split",
    "group_id",
    "objects",
    "absent",
    "content_sha256",
    "source",
    "recipe_sha256",
]


def diff(old: pa.Table, new: pa.Table) -> dict[str, Any]:
    """Compare two manifests.

    Returns {"counts", "added", "removed", "changed_labels", "changed_pixels", "moved"}: sorted sample
    ids, `moved` as {"sample_id", "from", "to"} splits. A sample whose content hash changed has changed
    labels where objects or absent concepts differ, else changed pixels; both are listed where the
    objects differ and the image's own file changed too.
    """
    before = {str(row["sample_id"]): row for row in old.select(_COLUMNS).to_pylist()}
    after = {str(row["sample_id"]): row for row in new.select(_COLUMNS).to_pylist()}
    common = sorted(set(before) & set(after))
    labels, pixels, moved = [], [], []
    for sample in common:
        left, right = before[sample], after[sample]
        same_labels = _labels(left) == _labels(right)
        if not same_labels:
            labels.append(sample)
        if left["content_sha256"] != right["content_sha256"] and (same_labels or _image_changed(left, right)):
            pixels.append(sample)
        if left["split"] != right["split"]:
            moved.append({"sample_id": sample, "from": left["split"], "to": right["split"]})
    result: dict[str, Any] = {
        "added": sorted(set(after) - set(before)),
        "removed": sorted(set(before) - set(after)),
        "changed_labels": labels,
        "changed_pixels": pixels,
        "moved": moved,
    }
    changed = len(set(labels) | set(pixels) | {item["sample_id"] for item in moved})
    result["counts"] = {name: len(value) for name, value in result.items()} | {"same": len(common) - changed}
    return result


def _labels(row: dict[str, Any]) -> str:
    return json.dumps([row["objects"], row["absent"]], sort_keys=True)


def _image_changed(left: dict[str, Any], right: dict[str, Any]) -> bool:
    """Whether the first source file, which is the image, has other bytes."""
    return bool(left["source"][0]["sha256"] != right["source"][0]["sha256"])
