"""The 2D half of a case: one picture, from a file or out of an array, is one sample."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocessing.harmonize import geometry, intensity, payload, slices, unions
from preprocessing.harmonize.item import CaseItem, Rows, case_columns, merge, reading, searched
from preprocessing.harmonize.labels import Masks
from preprocessing.harmonize.truth import Truth, read_truth
from preprocessing.readers import dicom, raster, stacks
from preprocessing.readers.sniff import kind_at

Picture = tuple[NDArray[np.uint8], dict[str, Any], bytes | None]


def flat_case(item: CaseItem) -> tuple[Rows, dict[str, Any]]:
    """Rows and columns of a picture. Raises CaseError."""
    card, case = item.card, item.case
    with reading(case.images[0]):
        pixels, record, jpeg = _picture(item)
    shape = (int(pixels.shape[0]), int(pixels.shape[1]))
    truths = [read_truth(item, file, shape) for file in case.labels]
    masks = merge([truth.masks for truth in truths])
    others = {name: merge([read_truth(item, file, shape).masks for file in files]) for name, files in case.readings}
    objects = objects_of(item, truths, masks)
    absent = sorted(searched(card, masks) - {each["concept"] for each in objects})
    objects, absent = unions.extend(objects, absent, card.unions, shape)
    row = slices.sample_row(
        sample_id=f"{card.name}/{item.shown_id}",
        pixels=pixels,
        objects=objects,
        absent=absent,
        jpeg=jpeg,
        codec=item.image_codec,
    )
    return [row], {**geometry.flat_columns(*shape), **case_columns(record, masks, others, 1)}


def objects_of(item: CaseItem, truths: list[Truth], masks: Masks) -> list[slices.Object]:
    """Objects of all concepts, told apart as the card says."""
    objects: list[slices.Object] = []
    for concept in sorted(masks):
        marking = [truth for truth in truths if concept in truth.masks]
        if item.instances == "values":
            found = [each for truth in marking for each in truth.objects_of(concept)]
            objects += [{**each, "instance": number} for number, each in enumerate(found, start=1)]
            continue
        if item.instances == "files":
            parts = [truth.masks[concept] for truth in marking]
        elif masks[concept].any():
            parts = slices.split_instances(masks[concept], item.instances, item.min_object_area_px)
        else:
            parts = []
        objects += slices.objects_of(concept, parts)
    return objects


def _picture(item: CaseItem) -> Picture:
    """8-bit pixels, the intensity record, and the file's own JPEG where it may pass through."""
    path, rule = item.path(item.case.images[0]), item.card.intensity
    if kind_at(path) == "dicom":
        shown = dicom.read_picture(path)
        pixels, record = intensity.to_8bit(shown.pixels, rule, inverted=shown.inverted, voi=shown.voi)
        return raster.grey_if_equal(pixels), record, None
    if stacks.is_array(path, item.layout):
        read = raster.channels(stacks.read_image_array(path, item.layout, item.case.index))
        pixels, record = intensity.to_8bit(read, rule)
        return raster.grey_if_equal(pixels), record, None
    picture = raster.read_image(path)
    pixels, record = intensity.to_8bit(picture.pixels, rule)
    jpeg = payload.strip_jpeg(path.read_bytes()) if picture.is_plain_jpeg and rule.rule == "as_is" else None
    return (pixels if jpeg is not None else raster.grey_if_equal(pixels)), record, jpeg
