"""Outlines to masks, by the rasterizer of the COCO API: a pixel belongs to a polygon by its centre.

Objects come as COCO run lengths, so that a thousand nuclei cost a thousand short strings and no thousand masks.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from infra.errors import CaseError
from preprocessing.cards import Coco, Polygons
from preprocessing.harmonize.labels import Mask, concept_named
from preprocessing.readers.coco import Annotation
from preprocessing.readers.polygons import Shape

RunLengths = dict[str, Any]  # as pycocotools has them: {"size": [height, width], "counts": bytes}
_AREAS = ("polygon", "mask")
# Points may lie outside of the picture, but not so far that walking there costs more than the picture.
_FARTHEST = 4


def shapes_by_concept(
    shapes: list[Shape], rule: Polygons, part: str, height: int, width: int, *, is_tile: bool = False
) -> dict[str, list[RunLengths]]:
    """Concept -> objects of a picture of `height` x `width` pixels.

    Outlines outside of it are left out of a tile, and refuse a whole picture: they were drawn on another.
    Raises CaseError `unknown_label`, `polygon`, and `label_kind` where a concept has only boxes, points or
    lines, from which no mask can be made.
    """
    found: dict[str, list[RunLengths]] = {}
    holes: dict[str, list[RunLengths]] = {}
    unusable: dict[str, str] = {}
    for shape in shapes:
        concept = _concept_of(shape, rule, part)
        if concept is None:
            continue
        if shape.kind not in _AREAS:
            unusable[concept] = shape.kind
            continue
        found.setdefault(concept, [])
        target = holes if shape.hole else found
        if not _touches(shape, height, width):
            if is_tile:
                continue
            low, high = shape.points_xy_px.min(axis=0), shape.points_xy_px.max(axis=0)
            raise CaseError(
                "polygon",
                expected=f"outlines in a picture of {width} x {height} pixels (width x height)",
                found=f"one from {np.round(low, 1).tolist()} to {np.round(high, 1).tolist()}",
                fix="Find the outlines that were drawn on this picture",
            )
        drawn = (
            polygons_to_rle([shape.points_xy_px], height, width)
            if shape.pixels is None
            else _pixels_to_rle(shape, shape.pixels, height, width)
        )
        target.setdefault(concept, []).append(drawn)
    for concept, kind in unusable.items():
        if concept not in found:
            raise CaseError(
                "label_kind",
                expected=f"an outline of {concept}",
                found=f"a {kind} alone",
                fix="Boxes, points and lines say where something is, not its shape: leave the case out",
            )
    return {concept: _without(objects, holes.get(concept, [])) for concept, objects in found.items()}


def annotations_by_concept(
    annotations: Iterable[Annotation], rule: Coco, height: int, width: int
) -> dict[str, list[RunLengths]]:
    """Concept -> objects of a COCO image. Raises CaseError `unknown_label`, `polygon`, `label_kind`, `mask_size`."""
    found: dict[str, list[RunLengths]] = {}
    for annotation in annotations:
        concept = concept_named(annotation.name, rule.names, rule.ignore, "a category")
        if concept is not None:
            found.setdefault(concept, []).append(_segmentation(annotation, height, width))
    return found


def polygons_to_rle(polygons: list[NDArray[np.float64]], height: int, width: int) -> RunLengths:
    """One object from its polygons (n, 2) in pixels. CaseError `polygon`: fewer than 3 points, or one far away."""
    farthest = _FARTHEST * max(height, width, 64)
    for points in polygons:
        if len(points) < 3 or not np.isfinite(points).all() or np.abs(points).max() > farthest:
            raise CaseError(
                "polygon",
                expected="polygons of 3 points or more, in the picture",
                found=f"{len(points)} point(s), x and y up to {np.abs(points).max(initial=0):.0f}",
                fix="Correct the annotation, or leave the case out",
            )
    parts = coco.frPyObjects([points.ravel().tolist() for points in polygons], height, width)
    merged: RunLengths = coco.merge(parts)
    return merged


def _pixels_to_rle(shape: Shape, pixels: Mask, height: int, width: int) -> RunLengths:
    """A mask that lies at its place in the picture; what is outside of it is cut off."""
    left, top = (round(value) for value in shape.points_xy_px[0].tolist())
    mask = np.zeros((height, width), dtype=np.uint8, order="F")
    rows = slice(max(top, 0), max(0, min(top + pixels.shape[0], height)))
    columns = slice(max(left, 0), max(0, min(left + pixels.shape[1], width)))
    mask[rows, columns] = pixels[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    found: RunLengths = coco.encode(mask)
    return found


def united(objects: list[RunLengths], height: int, width: int) -> Mask:
    """The mask (height, width) of all objects together."""
    if not objects:
        return np.zeros((height, width), dtype=bool)
    mask: Mask = coco.decode(coco.merge(objects)).astype(bool)
    return mask


def as_objects(concept: str, objects: list[RunLengths]) -> list[dict[str, Any]]:
    """Objects of the contract, numbered from 1; empty ones are left out."""
    rows: list[dict[str, Any]] = []
    for each in objects:
        area = int(coco.area(each))
        if area == 0:
            continue
        x, y, width, height = (round(value) for value in coco.toBbox(each).tolist())
        rows.append(
            {
                "concept": concept,
                "instance": len(rows) + 1,
                "rle": each["counts"].decode("ascii"),
                "bbox_xyxy": [x, y, x + width, y + height],
                "area": area,
            }
        )
    return rows


def _concept_of(shape: Shape, rule: Polygons, part: str) -> str | None:
    """By the first of the shape's names that the card knows; a shape without any by the file's part, or ""."""
    for name in shape.names:
        if name in rule.names or name in rule.ignore:
            return concept_named(name, rule.names, rule.ignore, "an outline")
    if part and not shape.names:
        return concept_named(part, rule.names, rule.ignore, "a file of outlines")
    if "" in rule.names and (not shape.names or len(rule.names) == 1):
        return rule.names[""]
    return concept_named(shape.names[0] if shape.names else part, rule.names, rule.ignore, "an outline")


def _touches(shape: Shape, height: int, width: int) -> bool:
    points = shape.points_xy_px
    if shape.pixels is None and len(points) < 3:
        return True  # no outline at all, which is told elsewhere
    low, high = points.min(axis=0), points.max(axis=0)
    return bool(high[0] >= 0 and high[1] >= 0 and low[0] <= width and low[1] <= height)


def _without(objects: list[RunLengths], holes: list[RunLengths]) -> list[RunLengths]:
    """Objects less what the holes cover."""
    if not holes:
        return objects
    cut = []
    for each in objects:
        for hole in holes:
            if int(coco.area(coco.merge([each, hole], intersect=True))):
                left = coco.decode(each).astype(bool) & ~coco.decode(hole).astype(bool)
                each = coco.encode(np.asfortranarray(left.astype(np.uint8)))
        cut.append(each)
    return cut


def _segmentation(annotation: Annotation, height: int, width: int) -> RunLengths:
    """Polygons, uncompressed or compressed run lengths of one annotation."""
    value = annotation.segmentation
    if isinstance(value, dict):
        size = [int(each) for each in value.get("size", [])]
        if size != [height, width]:
            raise CaseError("mask_size", expected=f"run lengths of {height} x {width}", found=f"of {size}")
        counts = value.get("counts")
        if isinstance(counts, list):
            if any(int(run) < 0 for run in counts) or sum(int(run) for run in counts) != height * width:
                raise CaseError("unreadable", expected=f"runs of {height * width} pixels", found="another sum")
            packed: RunLengths = coco.frPyObjects(value, height, width)
            return packed
        if isinstance(counts, str | bytes):
            from preprocessing.schema import rle

            text = counts.decode("ascii") if isinstance(counts, bytes) else counts
            if int(rle.string_to_counts(text).sum()) != height * width:  # the C decoder would write past the mask
                raise CaseError("unreadable", expected=f"runs of {height * width} pixels", found="another sum")
            return {"size": size, "counts": text.encode("ascii")}
    if isinstance(value, list) and value and all(isinstance(each, list) for each in value):
        return polygons_to_rle([np.asarray(each, dtype=np.float64).reshape(-1, 2) for each in value], height, width)
    raise CaseError(
        "label_kind",
        expected=f"polygons or run lengths of {annotation.name}",
        found="a box alone" if not value else f"a segmentation of {type(value).__name__}",
        fix="Boxes say where something is, not its shape: leave the case out",
    )
