"""One label file of a picture to its truth: masks by concept, and the objects that the file itself tells apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from infra.errors import CaseError
from preprocessing.cards import (
    Binary,
    ByChannel,
    ByColour,
    ByFile,
    Coco,
    InstanceIds,
    LabelRule,
    Outline,
    Polygons,
    RunLengths,
    Sprites,
)
from preprocessing.harmonize import outlines, slices
from preprocessing.harmonize.item import CaseItem, reading
from preprocessing.harmonize.labels import Masks, concept_named, masks_of
from preprocessing.readers import polygons, raster, stacks
from preprocessing.readers.coco import read_coco
from preprocessing.readers.runs import drawn, read_runs
from preprocessing.readers.sprites import placed, read_sprites, there


@dataclass(frozen=True)
class Truth:
    """`masks`: concept -> (height, width); `objects_of(concept)`: objects by instance number, polygon or annotation."""

    masks: Masks
    objects_of: Callable[[str], list[slices.Object]]


def read_truth(item: CaseItem, file: str, shape: tuple[int, int]) -> Truth:
    """The truth in one label file for a picture of `shape` (height, width). Raises CaseError with the file's name."""
    with reading(file):
        if isinstance(item.rule, Polygons):
            shapes = polygons.read_shapes(item.path(file))
            return of_outlines(outlines.shapes_by_concept(shapes, item.rule, item.part(file), *shape), shape)
        if isinstance(item.rule, Coco):
            return _of_coco(item, file, item.rule, shape)
        if isinstance(item.rule, Sprites):
            return _of_sprites(item, file, item.rule, shape)
        if isinstance(item.rule, RunLengths):
            return _of_runs(item, file, item.rule, shape)
        label = _label(item, file, shape)
        masks = masks_of(label, item.rule, item.part(file))
        return Truth(masks, lambda concept: _numbered(item, file, label, masks, concept))


def of_outlines(found: dict[str, list[outlines.RunLengths]], shape: tuple[int, int]) -> Truth:
    """The truth of outlines by concept: each outline is an object."""
    return Truth(
        {concept: outlines.united(objects, *shape) for concept, objects in found.items()},
        lambda concept: outlines.as_objects(concept, found.get(concept, [])),
    )


def _of_coco(item: CaseItem, file: str, rule: Coco, shape: tuple[int, int]) -> Truth:
    image = read_coco(item.path(file))[item.part(file)]
    said = (image.height or shape[0], image.width or shape[1])
    if said != shape:
        raise _other_size(shape, said)
    return of_outlines(outlines.annotations_by_concept(image.annotations, rule, *shape), shape)


def _of_sprites(item: CaseItem, file: str, rule: Sprites, shape: tuple[int, int]) -> Truth:
    """Of the table all sprites of the picture; the sprites' own files say nothing more."""
    if not item.part(file) and item.case.parts:
        return Truth({}, lambda _: [])
    parts: dict[str, list[slices.Mask]] = {}
    for sprite in read_sprites(item.path(file), rule)[item.part(file)]:  # of a table that cannot be read: raises
        concept = concept_named(sprite.name, rule.names, rule.ignore, "a row of the class")
        if concept is None:
            continue
        where = there(Path(item.root), file, sprite.mask)
        if where is None:
            raise CaseError("label_missing", expected=f"a file {sprite.mask!r}, as the table says", found="none")
        with reading(where):
            parts.setdefault(concept, []).append(placed(item.path(where), sprite, shape))
    masks = {concept: np.asarray(np.any(each, axis=0)) for concept, each in parts.items()}
    return Truth(masks, lambda concept: slices.objects_of(concept, parts.get(concept, [])))


def _of_runs(item: CaseItem, file: str, rule: RunLengths, shape: tuple[int, int]) -> Truth:
    parts: dict[str, list[slices.Mask]] = {}
    for row in read_runs(item.path(file), rule)[item.part(file)]:
        if not row.runs:  # and of which class there is nothing, such a row need not say
            continue
        concept = concept_named(row.name, rule.names, rule.ignore, "a row of the class")
        if concept is not None:
            parts.setdefault(concept, []).append(drawn(row.runs, rule, shape))
    masks = {concept: np.asarray(np.any(each, axis=0)) for concept, each in parts.items()}
    return Truth(masks, lambda concept: slices.objects_of(concept, parts.get(concept, [])))


def _label(item: CaseItem, file: str, shape: tuple[int, int]) -> NDArray[np.generic]:
    """The label array, (height, width) or with channels last."""
    path = item.path(file)
    if stacks.is_array(path, item.layout):
        return stacks.read_label_array(path, item.layout, item.case.index, shape, item.rule)
    label = raster.read_label(path, palette_of(item.rule))
    if label.shape[:2] != shape:
        raise _other_size(shape, (label.shape[0], label.shape[1]))
    return label


def palette_of(rule: LabelRule) -> raster.Palette:
    """How a rule wants the palette of a label picture read."""
    if isinstance(rule, ByColour):
        return "colour"
    return "binary" if isinstance(rule, Binary | Outline | ByFile) else "index"


def _numbered(item: CaseItem, file: str, label: NDArray[np.generic], masks: Masks, concept: str) -> list[slices.Object]:
    """Objects of a concept by the numbers in the label, or in the variable that the layout names for them."""
    rule, mask = item.rule, masks[concept]
    if item.layout.instance_key:
        numbers = stacks.read_label_array(
            item.path(file), item.layout, item.case.index, mask.shape, None, item.layout.instance_key
        )
        return slices.objects_of(concept, slices.by_number(np.where(mask, numbers, 0)))
    if isinstance(rule, InstanceIds):
        return slices.objects_of(concept, slices.by_number(label))
    if isinstance(rule, ByChannel) and rule.instance_ids:
        parts = [
            part
            for channel, named in rule.channels.items()
            if named == concept
            for part in slices.by_number(label[..., channel])
        ]
        return slices.objects_of(concept, parts)
    return slices.objects_of(concept, [mask])


def _other_size(shape: tuple[int, int], found: tuple[int, int]) -> CaseError:
    return CaseError(
        "mask_size",
        expected=f"{shape[1]} x {shape[0]} pixels (width x height), as the image",
        found=f"{found[1]} x {found[0]}",
        fix="Find the mask that was drawn on this image",
    )
