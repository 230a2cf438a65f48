"""From pixels and masks to sample rows of the contract."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocessing.cards import Instances
from preprocessing.harmonize import look, payload
from preprocessing.schema import DIGEST_BYTES, rle

Mask = NDArray[np.bool_]
Object = dict[str, Any]


def objects_of(concept: str, parts: list[Mask]) -> list[Object]:
    """Objects of one concept from its instance masks (height, width), numbered from 1; empty masks are left out."""
    found: list[Object] = []
    for mask in parts:
        box = x0, y0, x1, y1 = rle.bbox_xyxy(mask)
        area = int(np.count_nonzero(mask[y0:y1, x0:x1]))
        if area == 0:
            continue
        found.append(
            {
                "concept": concept,
                "instance": len(found) + 1,
                "rle": rle.encode(mask, box),
                "bbox_xyxy": list(box),
                "area": area,
            }
        )
    return found


def split_instances(mask: Mask, rule: Instances, min_area_px: int) -> list[Mask]:
    """Instances of a mask (height, width): the whole, or its 8-connected components.

    Components smaller than `min_area_px` pixels stay, as part of the largest one, so that the union of
    the instances is always the mask.
    """
    if rule != "components":
        return [mask]
    from scipy import ndimage  # a third of a second that only such datasets should pay

    numbered, count = ndimage.label(mask, structure=np.ones((3, 3), dtype=bool))
    if count <= 1:
        return [mask]
    sizes = np.bincount(numbered.ravel())[1:]
    small = np.flatnonzero(sizes < min_area_px) + 1
    if small.size:
        numbered[np.isin(numbered, small)] = int(sizes.argmax()) + 1
    kept = [index for index in range(1, count + 1) if index not in set(small.tolist()) - {int(sizes.argmax()) + 1}]
    return [np.asarray(numbered == index) for index in kept]


def by_number(label: NDArray[Any]) -> list[Mask]:
    """One mask for each positive value of an instance label picture, in rising order."""
    return [np.asarray(label == value) for value in np.unique(label) if value > 0]


def sample_row(
    *,
    sample_id: str,
    pixels: NDArray[np.uint8],
    objects: list[Object],
    absent: list[str],
    jpeg: bytes | None = None,
    codec: str = "png",
    axis: str | None = None,
    slice_index: int | None = None,
    spacing_mm_yx: tuple[float, float] | None = None,
) -> dict[str, Any]:
    """One row of `SHARD_SCHEMA` without what only the whole dataset knows (group, split), and its "look".

    `pixels` are what the payload decodes to; `jpeg` is the payload when it passed through, else `codec` makes it.
    """
    digest = look.pixels_digest(pixels)
    pixels_sha256 = digest.digest()
    ordered = sorted(objects, key=lambda item: (item["concept"], item["instance"]))
    said = _json(ordered)
    digest.update(said)  # goes on from the pixels: the identity of a sample is both
    return {
        "sample_id": sample_id,
        "axis": axis,
        "slice_index": slice_index,
        "height": int(pixels.shape[0]),
        "width": int(pixels.shape[1]),
        "spacing_mm_yx": list(spacing_mm_yx) if spacing_mm_yx else None,
        "image": jpeg if jpeg is not None else payload.encode(pixels, codec),
        "image_format": "jpeg" if jpeg is not None else codec,
        "objects": ordered,
        "absent": sorted(absent),
        "look": look.look(pixels, pixels_sha256.hex()),
        "content_sha256": digest.hexdigest(),
        "pixels_digest": pixels_sha256[:DIGEST_BYTES],
        "labels_digest": hashlib.sha256(said + _json(sorted(absent))).digest()[:DIGEST_BYTES],
    }


def _json(value: list[Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
