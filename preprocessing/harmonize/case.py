"""One case: verify its files, read them, harmonize them, and give rows, or the reason why not.

`process` is a top-level function of one picklable item, so that any map can run it anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.errors import CaseError
from infra.storage import sha256_file
from preprocessing.cards import DatasetCard, InstanceIds, RawCase, Segments
from preprocessing.harmonize import geometry, intensity, payload, slices, unions
from preprocessing.harmonize.labels import Mask, Masks, by_segment, dice, masks_of
from preprocessing.readers import DECODER_ERRORS, dicom, kind_of, nifti_family, raster, unreadable


@dataclass(frozen=True)
class CaseItem:
    """Everything that one case needs, wherever it runs. `sha256`: file -> digest in the inventory."""

    card: DatasetCard
    case: RawCase
    root: str
    sha256: dict[str, str]
    orientation: str
    min_object_area_px: int
    shown_id: str  # case id and file names as they are written: pseudonyms where the dataset is not public
    shown_files: dict[str, str]
    recipe: str = ""
    key: str = ""


@dataclass
class CaseResult:
    """Rows of a kept case, or why it was refused; `changed` names a file that is not what was scanned."""

    case_id: str
    key: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    columns: dict[str, Any] = field(default_factory=dict)
    refusal: dict[str, str] | None = None
    changed: str = ""


def process(item: CaseItem) -> CaseResult:
    """Harmonize one case. A CaseError becomes a refusal; a file that changed since the scan is reported."""
    result = CaseResult(item.shown_id, item.key)
    for file in item.case.files:
        path = Path(item.root) / file
        if not path.is_file() or sha256_file(path) != item.sha256.get(file):
            result.changed = file
            return result
    try:
        _check_complete(item)
        if kind_of(item.case.images[0]) == "raster":
            result.rows, result.columns = _flat(item)
        else:
            result.rows, result.columns = _volume(item)
    except CaseError as error:
        result.refusal = _refusal(item, error)
    except DECODER_ERRORS as error:
        # What the readers' own guards missed: one odd file must not end the run of all the others.
        result.refusal = _refusal(item, unreadable(error, Path(item.root) / item.case.files[0], "a case"))
    return result


def _refusal(item: CaseItem, error: CaseError) -> dict[str, str]:
    """The quarantine row; a reader knows its file by path, the row by the name that may be shown."""
    file = error.file or item.case.files[0]
    if file not in item.shown_files:
        file = Path(file).relative_to(item.root).as_posix()
    found = error.found
    for real, shown in item.shown_files.items():  # a decoder may quote the name that a closed dataset hides
        found = found.replace(Path(real).name, Path(shown).name)
    return {
        "case_id": item.shown_id,
        "file": item.shown_files[file],
        "reason": error.reason,
        "expected": error.expected,
        "found": found,
    }


@contextmanager
def _reading(file: str) -> Iterator[None]:
    """Name the file in a CaseError that knows none."""
    try:
        yield
    except CaseError as error:
        error.file = error.file or file
        raise


def _check_complete(item: CaseItem) -> None:
    case = item.case
    if not case.images:
        raise CaseError("image_missing", "an image for the label", "no image of this name", file=case.labels[0])
    if not case.labels:
        raise CaseError("label_missing", "a label for the image", "no label of this name", file=case.images[0])
    if kind_of(case.images[0]) != "dicom" and len(case.images) > 1:
        raise CaseError("image_count", "one image", f"{len(case.images)} images", file=case.images[1])


def _flat(item: CaseItem) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A 2D picture: one sample."""
    card, case = item.card, item.case
    root, file = Path(item.root), case.images[0]
    with _reading(file):
        picture = raster.read_image(root / file)
        pixels, record = intensity.to_8bit(picture.pixels, card.intensity)
        jpeg = None
        if picture.is_plain_jpeg and card.intensity.rule == "as_is":
            jpeg = payload.strip_jpeg((root / file).read_bytes())
        if jpeg is None:
            pixels = raster.grey_if_equal(pixels)
    shape = (int(pixels.shape[0]), int(pixels.shape[1]))
    masks, objects = _flat_objects(item, shape)
    others = {name: _merge([_flat_masks(item, part, shape) for part in files]) for name, files in case.readings}
    absent = sorted(_searched(card, masks) - {item["concept"] for item in objects})
    objects, absent = unions.extend(objects, absent, card.unions, shape)
    row = slices.sample_row(
        sample_id=f"{card.name}/{item.shown_id}",
        pixels=pixels,
        objects=objects,
        absent=absent,
        jpeg=jpeg,
    )
    return [row], {**geometry.flat_columns(*shape), **_columns(record, masks, others, 1)}


def _flat_objects(item: CaseItem, shape: tuple[int, int]) -> tuple[Masks, list[slices.Object]]:
    """Masks by concept and objects by instance of all label pictures of a case."""
    how = item.case.instances or item.card.instances
    rule = item.case.rule or item.card.labels
    read = [_flat_masks(item, file, shape) for file in item.case.labels]
    masks = _merge(read)
    objects: list[slices.Object] = []
    for concept in sorted(masks):
        if how == "files":
            parts = [found[concept] for found in read if concept in found]
        elif how == "values" and isinstance(rule, InstanceIds):
            labels = [raster.read_label(Path(item.root) / file) for file in item.case.labels]
            parts = [part for label in labels for part in slices.by_number(label)]
        elif masks[concept].any():
            parts = slices.split_instances(masks[concept], how, item.min_object_area_px)
        else:
            parts = []
        objects += slices.objects_of(concept, parts)
    return masks, objects


def _flat_masks(item: CaseItem, file: str, shape: tuple[int, int]) -> Masks:
    with _reading(file):
        label = raster.read_label(Path(item.root) / file)
        if label.shape[:2] != shape:
            raise CaseError(
                "mask_size",
                expected=f"{shape[1]} x {shape[0]} pixels (width x height), as the image",
                found=f"{label.shape[1]} x {label.shape[0]}",
                fix="Find the mask that was drawn on this image",
            )
        return masks_of(label, item.case.rule or item.card.labels)


def _volume(item: CaseItem) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A volume: one sample for every slice across the axis of coarsest spacing, empty slices too."""
    card, case, root = item.card, item.case, Path(item.root)
    with _reading(case.images[0]):
        uids: list[str] = []
        if kind_of(case.images[0]) == "dicom":
            original, uids = dicom.read_series([root / file for file in case.images])
        else:
            original = nifti_family.read_volume(root / case.images[0])
        image = geometry.orient(original, item.orientation)
        voxels, record = intensity.to_8bit(nifti_family.array_of(image), card.intensity)
    masks = _merge([_volume_masks(item, file, original, image, uids) for file in case.labels])
    others = {
        name: _merge([_volume_masks(item, file, original, image, uids) for file in files])
        for name, files in case.readings
    }
    axis = geometry.slicing_axis(image.GetSpacing())
    rows = _cut(item, voxels, masks, axis, geometry.in_plane(image.GetSpacing(), axis))
    record = {**record, "axis": axis}
    return rows, {**geometry.grid_columns(original, image), **_columns(record, masks, others, len(rows))}


def _cut(
    item: CaseItem, voxels: NDArray[np.uint8], masks: Masks, axis: str, spacing: tuple[float, float]
) -> list[dict[str, Any]]:
    where = "zyx".index(axis)
    planes: dict[str, NDArray[np.bool_]] = {concept: np.moveaxis(mask, where, 0) for concept, mask in masks.items()}
    marked: dict[str, Mask] = {concept: np.asarray(plane.any(axis=(1, 2))) for concept, plane in planes.items()}
    how = item.case.instances or item.card.instances
    searched = _searched(item.card, masks)
    rows = []
    for index, pixels in enumerate(np.moveaxis(voxels, where, 0)):
        on_slice = {concept: plane[index] for concept, plane in planes.items() if marked[concept][index]}
        objects: list[slices.Object] = []
        for concept in sorted(on_slice):
            parts = slices.split_instances(on_slice[concept], how, item.min_object_area_px)
            objects += slices.objects_of(concept, parts)
        shape = (int(pixels.shape[0]), int(pixels.shape[1]))
        objects, absent = unions.extend(objects, sorted(searched - set(on_slice)), item.card.unions, shape)
        rows.append(
            slices.sample_row(
                sample_id=f"{item.card.name}/{item.shown_id}/{axis}{index:04d}",
                pixels=pixels,
                objects=objects,
                absent=absent,
                axis=axis,
                slice_index=index,
                spacing_mm_yx=spacing,
            )
        )
    return rows


def _volume_masks(item: CaseItem, file: str, original: Any, image: Any, uids: list[str]) -> Masks:
    """Masks (z, y, x) of one label file on the harmonized grid."""
    rule = item.case.rule or item.card.labels
    path = Path(item.root) / file
    with _reading(file):
        if isinstance(rule, Segments):
            x, y, z = original.GetSize()
            found = by_segment(dicom.read_segments(path, uids, (z, y, x)), rule)
            return {
                concept: _like(mask.astype(np.uint8), original, item.orientation) for concept, mask in found.items()
            }
        label = geometry.orient(nifti_family.read_volume(path), item.orientation)
        geometry.check_same_grid(image, label)
        return masks_of(nifti_family.array_of(label), rule)


def _like(mask: NDArray[np.uint8], original: Any, orientation: str) -> NDArray[np.bool_]:
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(mask)
    image.CopyInformation(original)
    return nifti_family.array_of(geometry.orient(image, orientation)).astype(bool)


def _merge(read: list[Masks]) -> Masks:
    """Unite masks of several files by concept."""
    merged: Masks = {}
    for masks in read:
        for concept, mask in masks.items():
            merged[concept] = merged[concept] | mask if concept in merged else mask
    return merged


def _searched(card: DatasetCard, masks: Masks) -> set[str]:
    """Concepts that were searched for in all of a case: the card's, and those that its truth marks anywhere."""
    return set(card.searched) | {concept for concept, mask in masks.items() if mask.any()}


def _columns(record: dict[str, Any], masks: Masks, others: dict[str, Masks], samples: int) -> dict[str, Any]:
    """The columns of `CASES_SCHEMA` that are not geometry. Counts are voxels on the original grid."""
    voxels = {concept: int(np.count_nonzero(mask)) for concept, mask in sorted(masks.items())}
    agreement = {
        name: {concept: dice(mask, masks[concept]) for concept, mask in sorted(found.items()) if concept in masks}
        for name, found in others.items()
    }
    return {
        "intensity": json.dumps(record, sort_keys=True),
        "source_voxels": json.dumps(voxels, sort_keys=True),
        "agreement": json.dumps(agreement, sort_keys=True) if agreement else None,
        "samples": samples,
    }
