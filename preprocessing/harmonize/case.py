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
from preprocessing import burned_in, deid
from preprocessing.cards import DatasetCard, InstanceIds, Intensity, RawCase
from preprocessing.harmonize import geometry, intensity, payload, slices, volume
from preprocessing.harmonize.labels import Masks, dice, masks_of
from preprocessing.readers import DECODER_ERRORS, dicom, kind_of, nifti_family, raster, unreadable
from preprocessing.readers.dicom_file import read_header

_LOOKED_AT = 8  # slices of a volume that are searched for writing: it is on most of them or on none


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
        if _is_flat(item):
            result.rows, result.columns = _flat(item)
        else:
            result.rows, result.columns = _volume(item)
        result.columns["review"] = _review(item, result.rows)
    except CaseError as error:
        result.rows, result.columns, result.refusal = [], {}, _refusal(item, error)
    except DECODER_ERRORS as error:
        # What the readers' own guards missed: one odd file must not end the run of all the others.
        result.rows, result.columns = [], {}
        result.refusal = _refusal(item, unreadable(error, Path(item.root) / item.case.files[0], "a case"))
    return result


def _refusal(item: CaseItem, error: CaseError) -> dict[str, str]:
    """The quarantine row; a reader knows its file by path, the row by the name that may be shown."""
    file = error.file or item.case.files[0]
    if file not in item.shown_files:
        file = Path(file).relative_to(item.root).as_posix()
    found = error.found
    for real, shown in item.shown_files.items():  # a decoder may quote the name that a closed dataset hides
        found = found.replace(real, shown).replace(Path(real).name, Path(shown).name)
    paths = [Path(item.root) / each for each in item.case.files]
    found = deid.scrub(found, deid.secrets_of(path for path in paths if kind_of(path) == "dicom"), not item.card.public)
    return {
        "case_id": item.shown_id,
        "file": item.shown_files[file],
        "reason": error.reason,
        "expected": error.expected,
        "found": found,
    }


def _review(item: CaseItem, rows: list[dict[str, Any]]) -> str | None:
    """What a person should look at before pixels leave, as JSON; null is no promise that there is nothing.

    Asked of DICOM and of closed datasets. Raises CaseError `burned_in_text` where a closed dataset's file
    itself says that its pixels name the patient.
    """
    first = Path(item.root) / item.case.images[0]
    is_dicom = kind_of(first) == "dicom"
    if not rows or (item.card.public and not is_dicom):
        return None
    step = max(1, len(rows) // _LOOKED_AT)
    signs = burned_in.look(
        read_header(first) if is_dicom else None, (payload.decode(row["image"]) for row in rows[::step])
    )
    if "tag" in signs and not item.card.public:
        raise CaseError(
            "burned_in_text",
            expected="pixels without a patient's data",
            found="BurnedInAnnotation YES",
            fix="Blacken the writing and set the tag to NO, or leave the case out",
        )
    return json.dumps({"burned_in_text": signs}) if signs else None


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
    if len(case.images) > 1 and kind_of(Path(item.root) / case.images[0]) != "dicom":
        raise CaseError("image_count", "one image", f"{len(case.images)} images", file=case.images[1])


def _flat(item: CaseItem) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A 2D picture: one sample."""
    card, case = item.card, item.case
    root, file = Path(item.root), case.images[0]
    with _reading(file):
        pixels, record, jpeg = _picture(root / file, card.intensity)
    shape = (int(pixels.shape[0]), int(pixels.shape[1]))
    masks, objects = _flat_objects(item, shape)
    others = {name: _merge([_flat_masks(item, part, shape) for part in files]) for name, files in case.readings}
    row = slices.sample_row(
        sample_id=f"{card.name}/{item.shown_id}",
        pixels=pixels,
        objects=objects,
        absent=sorted(_searched(card, masks) - {item["concept"] for item in objects}),
        jpeg=jpeg,
    )
    return [row], {**geometry.flat_columns(*shape), **_columns(record, masks, others, 1)}


def _is_flat(item: CaseItem) -> bool:
    """Whether a case is a picture: a raster file, or one DICOM image that has no place in a patient."""
    first = Path(item.root) / item.case.images[0]
    kind = kind_of(first)
    return kind == "raster" or (kind == "dicom" and len(item.case.images) == 1 and dicom.is_picture(first))


def _picture(path: Path, rule: Intensity) -> tuple[NDArray[np.uint8], dict[str, Any], bytes | None]:
    """8-bit pixels, the intensity record, and the file's own JPEG where it may pass through."""
    if kind_of(path) == "dicom":
        shown = dicom.read_picture(path)
        pixels, record = intensity.to_8bit(shown.pixels, rule, inverted=shown.inverted, voi=shown.voi)
        return raster.grey_if_equal(pixels), record, None
    picture = raster.read_image(path)
    pixels, record = intensity.to_8bit(picture.pixels, rule)
    jpeg = payload.strip_jpeg(path.read_bytes()) if picture.is_plain_jpeg and rule.rule == "as_is" else None
    return (pixels if jpeg is not None else raster.grey_if_equal(pixels)), record, jpeg


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
    """A volume: one sample for every slice across the card's axes, empty slices too."""
    card, case, root = item.card, item.case, Path(item.root)
    with _reading(case.images[0]):
        read = volume.read([root / file for file in case.images], card, item.orientation)
        voxels, record = intensity.to_8bit(
            nifti_family.array_of(read.harmonized), card.intensity, inverted=read.inverted, voi=read.voi
        )
    masks = _merge([_volume_masks(item, file, read) for file in case.labels])
    others = {name: _merge([_volume_masks(item, file, read) for file in files]) for name, files in case.readings}
    rows = _cut(item, voxels, volume.regridded(masks, read), read.harmonized.GetSpacing(), read)
    axes = volume.axes_of(card, read.harmonized)
    record = {**record, "axis": axes[0], **({"axes": list(axes)} if len(axes) > 1 else {})}
    return rows, {
        **geometry.grid_columns(read.original, read.harmonized),
        **_columns(record, masks, others, len(rows)),
    }


def _cut(
    item: CaseItem, voxels: NDArray[np.uint8], masks: Masks, spacing: tuple[float, ...], read: volume.Volume
) -> list[dict[str, Any]]:
    how = item.case.instances or item.card.instances
    searched = _searched(item.card, masks)
    rows = []
    for axis in volume.axes_of(item.card, read.harmonized):
        for index, pixels, on_slice in volume.planes(voxels, masks, axis):
            objects: list[slices.Object] = []
            for concept in sorted(on_slice):
                parts = slices.split_instances(on_slice[concept], how, item.min_object_area_px)
                objects += slices.objects_of(concept, parts)
            rows.append(
                slices.sample_row(
                    sample_id=f"{item.card.name}/{item.shown_id}/{axis}{index:04d}",
                    pixels=pixels,
                    objects=objects,
                    absent=sorted(searched - set(on_slice)),
                    axis=axis,
                    slice_index=index,
                    spacing_mm_yx=geometry.in_plane(spacing, axis),
                )
            )
    return rows


def _volume_masks(item: CaseItem, file: str, read: volume.Volume) -> Masks:
    """Masks (z, y, x) of one label file on the oriented grid of a volume."""
    rule = item.case.rule or item.card.labels
    with _reading(file):
        return volume.label_masks(Path(item.root) / file, rule, read, item.orientation, item.card.frame)


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
