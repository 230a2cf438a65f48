"""One case: verify its files, read them, harmonize them, and give rows, or the reason why not.

`process` is a top-level function of one picklable item, so that any map can run it anywhere.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.errors import CaseError
from infra.storage import sha256_file
from preprocessing import burned_in, deid
from preprocessing.harmonize import geometry, intensity, payload, slices, unions, volume
from preprocessing.harmonize.flat import flat_case
from preprocessing.harmonize.item import CaseItem, case_columns, merge, reading, searched
from preprocessing.harmonize.labels import Masks
from preprocessing.harmonize.sides import check_sides
from preprocessing.harmonize.slide import slide_case
from preprocessing.many import digest_of_shared, shares_files
from preprocessing.readers import DECODER_ERRORS, dicom, nifti_family, stacks, unreadable
from preprocessing.readers.dicom_file import read_header
from preprocessing.readers.sniff import kind_at

_HALVES = ("image_missing", "label_missing")
_LOOKED_AT = 8  # slices of a volume that are searched for writing: it is on most of them or on none

__all__ = ["CaseItem", "CaseResult", "process"]


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
        digest = digest_of_shared if shares_files(item.case, item.card) else sha256_file
        if not path.is_file() or digest(path) != item.sha256.get(file):
            result.changed = file
            return result
    try:
        _check_complete(item)
        if item.layout.tiles is not None:
            result.rows, result.columns = slide_case(item, item.layout.tiles)
        elif _is_flat(item):
            result.rows, result.columns = flat_case(item)
        else:
            result.rows, result.columns = _volume(item)
        _check_says_something(item, result)
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
    if error.reason not in _HALVES:  # those quote nothing, and a header may well say "image"
        dicom = [path for each in item.case.files if kind_at(path := Path(item.root) / each) == "dicom"]
        found = deid.scrub(found, deid.secrets_of(dicom), not item.card.public)
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
    is_dicom = kind_at(first) == "dicom"
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


def _check_complete(item: CaseItem) -> None:
    case = item.case
    if not case.images:
        raise CaseError("image_missing", "an image for the label", "no image of this name", file=case.labels[0])
    if not case.labels:
        raise CaseError("label_missing", "a label for the image", "no label of this name", file=case.images[0])
    if len(case.images) > 1 and kind_at(item.path(case.images[0])) != "dicom":
        raise CaseError("image_count", "one image", f"{len(case.images)} images", file=case.images[1])


def _check_says_something(item: CaseItem, result: CaseResult) -> None:
    """An empty label is a true negative where the card searched for something; where it did not, it says nothing."""
    if not any(row["objects"] or row["absent"] for row in result.rows):
        result.rows, result.columns = [], {}
        raise CaseError(
            "empty_label",
            expected="a mark, or a concept that the card calls searched",
            found="nothing marked, and nothing searched for",
            file=item.case.labels[0],
            fix="If unmarked means absent, say so in the card: searched=(…)",
        )


def _is_flat(item: CaseItem) -> bool:
    """Whether a case is a picture: a raster file, axes without z, or one DICOM image without a place."""
    file = item.case.images[0]
    path = item.path(file)
    with reading(file):
        kind = kind_at(path)
        if kind == "dicom":
            return len(item.case.images) == 1 and dicom.is_picture(path)
        if stacks.is_array(path, item.layout):
            return not stacks.is_volume(path, item.layout)
        return kind == "raster"


def _volume(item: CaseItem) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A volume: one sample for every slice across the card's axes, empty slices too."""
    card, case = item.card, item.case
    with reading(case.images[0]):
        read = volume.read([item.path(file) for file in case.images], card, item.orientation, item.layout, case.index)
        voxels, record = intensity.to_8bit(
            nifti_family.array_of(read.harmonized), card.intensity, inverted=read.inverted, voi=read.voi
        )
    masks = merge([_volume_masks(item, file, read) for file in case.labels])
    intensity.check_not_blank(voxels, any(mask.any() for mask in masks.values()))
    if read.placed:
        with reading(case.labels[0]):
            check_sides(masks, read.oriented)
    others = {name: merge([_volume_masks(item, file, read) for file in files]) for name, files in case.readings}
    rows = _cut(item, voxels, volume.regridded(masks, read), read)
    axes = volume.axes_of(card, read.harmonized)
    record = {**record, "axis": axes[0], **({"axes": list(axes)} if len(axes) > 1 else {})}
    if card.frame is not None:
        record["frame"] = card.frame  # of a file of several, counted from 0; the label is of that frame
    grid = geometry.grid_columns(read.original, read.harmonized)
    return rows, {
        **(grid if read.placed else geometry.unplaced(grid)),
        **case_columns(record, masks, others, len(rows)),
    }


def _cut(item: CaseItem, voxels: NDArray[np.uint8], masks: Masks, read: volume.Volume) -> list[dict[str, Any]]:
    looked_for = searched(item.card, masks)
    numbers = _volume_numbers(item, read) if item.instances == "values" else {}
    spacing = read.harmonized.GetSpacing()
    rows = []
    for axis in volume.axes_of(item.card, read.harmonized):
        for index, pixels, on_slice in volume.planes(voxels, masks, axis):
            objects: list[slices.Object] = []
            for concept in sorted(on_slice):
                if concept in numbers:
                    parts = slices.by_number(np.take(numbers[concept], index, axis="zyx".index(axis)))
                else:
                    parts = slices.split_instances(on_slice[concept], item.instances, item.min_object_area_px)
                objects += slices.objects_of(concept, parts)
            shape = (int(pixels.shape[0]), int(pixels.shape[1]))
            objects, absent = unions.extend(objects, sorted(looked_for - set(on_slice)), item.card.unions, shape)
            rows.append(
                slices.sample_row(
                    sample_id=f"{item.card.name}/{item.shown_id}/{axis}{index:04d}",
                    pixels=pixels,
                    codec=item.image_codec,
                    objects=objects,
                    absent=absent,
                    axis=axis,
                    slice_index=index,
                    spacing_mm_yx=geometry.in_plane(spacing, axis) if read.placed else None,
                )
            )
    return rows


def _volume_masks(item: CaseItem, file: str, read: volume.Volume) -> Masks:
    """Masks (z, y, x) of one label file on the oriented grid of a volume."""
    with reading(file):
        return volume.label_masks(item, file, read)


def _volume_numbers(item: CaseItem, read: volume.Volume) -> dict[str, NDArray[Any]]:
    """Instance numbers (z, y, x) of the first label file, by concept, on the harmonized grid."""
    with reading(item.case.labels[0]):
        return volume.label_numbers(item, item.case.labels[0], read)
