"""A large picture as a case of many samples: one a tile, each read, labelled and encoded alone."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.errors import CaseError
from preprocessing.cards import ABOUT_MANY, InstanceIds, Outline, Polygons, Tiles
from preprocessing.harmonize import geometry, intensity, outlines, slices, unions
from preprocessing.harmonize.flat import objects_of
from preprocessing.harmonize.item import CaseItem, Rows, case_columns, merge, reading
from preprocessing.harmonize.labels import masks_of
from preprocessing.harmonize.truth import Truth, of_outlines, palette_of
from preprocessing.readers import polygons, raster
from preprocessing.readers.tiles import Slide, level_for, open_slide, origins

# More are not held in memory at once; a coarser level, or larger tiles, have fewer.
_MOST_TILES = 50_000
TruthAt = Callable[[int, int, int, int], Truth]


def slide_case(item: CaseItem, tiles: Tiles) -> tuple[Rows, dict[str, Any]]:
    """Rows and columns of a picture cut into tiles. A tile's `sample_id` ends in its origin on the level that was cut.

    The record says size, level, scale and how many tiles were left out as blank. Raises CaseError.
    """
    file = item.case.images[0]
    if item.card.intensity.rule not in ("as_is", "window"):
        raise CaseError(
            "intensity",
            expected="the rule as_is or window: percentiles would be another in every tile",
            found=item.card.intensity.rule,
            file=file,
        )
    with ExitStack() as stack:
        with reading(file):
            slide = stack.enter_context(open_slide(item.path(file)))
            level = level_for(slide, tiles)
            height, width = slide.sizes[level]
            count = -(-height // tiles.size_px) * -(-width // tiles.size_px)
            if count > _MOST_TILES:
                raise CaseError(
                    "too_large",
                    expected=f"at most {_MOST_TILES} tiles",
                    found=f"{count} of {tiles.size_px} pixels at level {level}",
                    fix="Give the card a coarser level or mpp, or larger tiles",
                )
        truths = [_truth_of(item, each, slide, level, stack) for each in item.case.labels]
        rows, voxels, blank, record = _cut(item, tiles, slide, level, truths)
    found = {concept for concept, area in voxels.items() if area}
    for row in rows:
        absent = sorted((set(item.card.searched) | found) - {each["concept"] for each in row["objects"]})
        row["absent"] = unions.extend([], absent, item.card.unions, (row["height"], row["width"]))[1]
    record["tiles"] = {
        "size_px": tiles.size_px, "level": level, "scale": slide.scale(level), "mpp": slide.mpp, "blank": blank
    }  # fmt: skip
    return rows, {
        **geometry.flat_columns(height, width),
        "original_size_xyz": [slide.sizes[0][1], slide.sizes[0][0]],
        **case_columns(record, {}, {}, len(rows)),
        "source_voxels": json.dumps(voxels, sort_keys=True),  # pixels of the level that was cut
    }


def _cut(
    item: CaseItem, tiles: Tiles, slide: Slide, level: int, truths: list[TruthAt]
) -> tuple[Rows, Counter[str], int, dict[str, Any]]:
    height, width = slide.sizes[level]
    spacing = slide.mpp * slide.scale(level) / 1000 if slide.mpp else None
    rows: Rows = []
    voxels: Counter[str] = Counter()
    blank = 0
    record: dict[str, Any] = {"rule": item.card.intensity.rule}
    for y, x in origins(height, width, tiles.size_px):
        tall, wide = min(tiles.size_px, height - y), min(tiles.size_px, width - x)
        with reading(item.case.images[0]):
            stored = slide.read(level, y, x, tall, wide, "colour")
            pixels, record = intensity.to_8bit(stored, item.card.intensity)
        marked = [truth(y, x, tall, wide) for truth in truths]
        masks = merge([truth.masks for truth in marked])
        areas = {concept: int(np.count_nonzero(mask)) for concept, mask in masks.items()}
        voxels.update(areas)
        if not any(areas.values()) and _range(pixels) <= tiles.blank_range:
            blank += 1
            continue
        rows.append(
            slices.sample_row(
                sample_id=f"{item.card.name}/{item.shown_id}/y{y:06d}x{x:06d}",
                pixels=raster.grey_if_equal(pixels),
                codec=item.image_codec,
                objects=unions.extend(objects_of(item, marked, masks), [], item.card.unions, (tall, wide))[0],
                absent=[],
                spacing_mm_yx=(spacing, spacing) if spacing else None,
            )
        )
    return rows, voxels, blank, record


def _range(pixels: NDArray[np.uint8]) -> int:
    """The largest difference within a channel."""
    return int(np.max(pixels.max(axis=(0, 1)).astype(int) - pixels.min(axis=(0, 1)).astype(int)))


def _truth_of(item: CaseItem, file: str, slide: Slide, level: int, stack: ExitStack) -> TruthAt:
    """The truth of any tile, from one label file."""
    rule = item.rule
    with reading(file):
        if isinstance(rule, Polygons):
            return _from_shapes(polygons.read_shapes(item.path(file)), item, file, slide.scale(level))
        if isinstance(rule, ABOUT_MANY):
            found = f"a file for {type(rule).__name__}"
            raise CaseError("label_kind", expected="a mask or polygons of a slide", found=found)
        if isinstance(rule, Outline):
            raise CaseError("label_kind", expected="a mask or polygons of a slide", found="an outline to be filled")
        palette = palette_of(rule)
        mask = stack.enter_context(open_slide(item.path(file), palette))
        if slide.sizes[level] not in mask.sizes:
            listed = ", ".join(f"{wide} x {tall}" for tall, wide in mask.sizes)
            raise CaseError(
                "mask_size",
                expected=f"a level of {slide.sizes[level][1]} x {slide.sizes[level][0]} pixels, as the image",
                found=listed,
                fix="Find the mask of this slide, or cut the level that both have",
            )
        own = mask.sizes.index(slide.sizes[level])
    return lambda y, x, tall, wide: _from_mask(item, file, mask.read(own, y, x, tall, wide, palette))


def _from_mask(item: CaseItem, file: str, label: NDArray[Any]) -> Truth:
    with reading(file):
        masks = masks_of(label, item.rule, item.part(file))

    def numbered(concept: str) -> list[slices.Object]:
        parts = slices.by_number(label) if isinstance(item.rule, InstanceIds) else [masks[concept]]
        return slices.objects_of(concept, parts)

    return Truth(masks, numbered)


def _from_shapes(shapes: list[polygons.Shape], item: CaseItem, file: str, scale: float) -> TruthAt:
    assert isinstance(item.rule, Polygons)
    rule = item.rule
    if scale != 1 and any(shape.pixels is not None for shape in shapes):
        with reading(file):
            expected = "outlines, or masks of the level that the card reads"
            raise CaseError("label_kind", expected=expected, found=f"masks of a level {scale:g} times as fine")
    scaled = [replace(shape, points_xy_px=shape.points_xy_px / scale) for shape in shapes]
    boxes = [(*shape.points_xy_px.min(axis=0), *shape.points_xy_px.max(axis=0)) for shape in scaled]

    def at(y: int, x: int, tall: int, wide: int) -> Truth:
        near = [
            replace(shape, points_xy_px=shape.points_xy_px - (x, y))
            for shape, (x0, y0, x1, y1) in zip(scaled, boxes, strict=True)
            if x0 <= x + wide and x1 >= x and y0 <= y + tall and y1 >= y
        ]
        with reading(file):
            found = outlines.shapes_by_concept(near, rule, item.part(file), tall, wide, is_tile=True)
        return of_outlines(found, (tall, wide))

    return at
