"""Masks, boxes and scores as plain values: what a served model answers."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.errors import UsageError
from preprocessing.schema import rle

Row = dict[str, Any]
Mask = NDArray[np.bool_]

FORMS = ("rle", "array", "file")


def check_form(form: str) -> str:
    """UsageError for a form of masks that there is none of."""
    if form not in FORMS:
        msg = f"masks: expected one of {', '.join(FORMS)}, found {form!r}"
        raise UsageError(msg)
    return form


def answer_row(result: Row, scene: Any, form: str) -> Row:
    """One prompt's result on the original grid as an answer; see `registry.predictor` for its keys.

    `result` has prompt, score, mask and instances ({"score", "mask", for pictures "bbox_xyxy"}).
    """
    is_picture = scene.axes == "yx"
    return {
        "prompt": result["prompt"],
        "score": float(result["score"]),
        "kind": "picture" if is_picture else "volume",
        "axes": scene.axes,
        "size": [int(size) for size in scene.shape],
        **_masked(result["mask"], scene, form),
        "instances": [
            {
                "score": float(one["score"]),
                **(
                    {"bbox_xyxy": [float(value) for value in one["bbox_xyxy"]]}
                    if is_picture
                    else {"bbox_xyzxyz": box_of_volume(one["mask"])}
                ),
                **_masked(one["mask"], scene, form),
            }
            for one in result["instances"]
        ],
        "intensity": scene.intensity,
        **({} if scene.geometry is None else {"geometry": scene.geometry}),
    }


def coco_rle(mask: NDArray[Any]) -> Row:
    """A mask (height, width) as COCO compressed RLE with its size."""
    return {"size": [int(mask.shape[0]), int(mask.shape[1])], "counts": rle.encode(mask)}


def box_of_volume(mask: Mask) -> list[int]:
    """Tight box (x0, y0, z0, x1, y1, z1) in voxels of a mask (z, y, x), ends exclusive; zeros for an empty one."""
    spans = []
    for axis in range(3):
        on = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        if not on.size:
            return [0] * 6
        spans.append((int(on[0]), int(on[-1]) + 1))
    (z0, z1), (y0, y1), (x0, x1) = spans
    return [x0, y0, z0, x1, y1, z1]


def _masked(mask: Any, scene: Any, form: str) -> Row:
    array = np.asarray(mask)
    if form == "array":
        return {"mask": array.astype(np.uint8)}
    if form == "file":
        return {"file": base64.b64encode(scene.encoded(array)).decode("ascii")}
    if scene.axes == "yx":
        return {"rle": coco_rle(array)}
    marked = np.flatnonzero(array.any(axis=(1, 2)))
    return {"slices": [{"index": int(index), "rle": coco_rle(array[index])} for index in marked]}
