"""The volume half of a case: read it, put labels on its grid, bring both to the harmonized grid, cut slices.

Labels are judged and counted on the grid of the image as it was stored (in the harmonized orientation);
only then are they resampled with it, where the card asks for that or a tilt makes it necessary.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from preprocessing.cards import Contours, DatasetCard, InstanceIds, Layout, Segments
from preprocessing.harmonize import geometry, stack
from preprocessing.harmonize.item import CaseItem
from preprocessing.harmonize.labels import Mask, Masks, by_segment, masks_of_volume
from preprocessing.readers import dicom, kind_of, nifti_family, rtstruct, seg, stacks
from preprocessing.readers.voi import Voi

_PLAIN = Layout(image="")


@dataclass(frozen=True)
class Volume:
    """A volume as stored, the same voxels in the harmonized orientation, and on the grid that is cut.

    `uids` are the SOP instances of DICOM slices; `inverted` and `voi` are what DICOM says about display;
    `header` is the first slice's.
    """

    original: sitk.Image
    oriented: sitk.Image
    harmonized: sitk.Image
    uids: tuple[str, ...] = ()
    inverted: bool = False
    voi: Voi | None = None
    header: Any = None
    placed: bool = True  # whether the size of a voxel is known


def read(
    paths: list[Path], card: DatasetCard, orientation: str, layout: Layout = _PLAIN, index: int | None = None
) -> Volume:
    """Read and harmonize the image of a case, `index` of a stack. Raises CaseError as the readers do."""
    if stacks.is_array(paths[0], layout):
        original = stack.read_volume(paths[0], layout, index)
        if not stack.has_spacing(layout):
            return Volume(original, original, original, placed=False)
        oriented = geometry.orient(original, orientation)
        return Volume(original, oriented, geometry.regrid(oriented, card.spacing_mm_zyx))
    if kind_of(paths[0]) == "dicom":
        series = dicom.read_series(paths, card.frame)
        original, rest = series.image, (tuple(series.uids), series.inverted, series.voi, series.header)
    else:
        original, rest = nifti_family.read_volume(paths[0], card.frame), ((), False, None, None)
    oriented = geometry.orient(original, orientation)
    return Volume(original, oriented, geometry.regrid(oriented, card.spacing_mm_zyx), *rest)


def label_masks(item: CaseItem, file: str, volume: Volume) -> Masks:
    """Masks (z, y, x) of one label file on the grid of `volume.oriented`. Raises CaseError as readers and rules do."""
    path, rule = item.path(file), item.rule
    if isinstance(rule, Segments):
        return _oriented(by_segment(_segments(path, rule, volume), rule), volume.original, item.orientation)
    if isinstance(rule, Contours):
        return _oriented(by_segment(_regions(path, rule, volume), rule), volume.original, item.orientation)
    if stacks.is_array(path, item.layout):
        found = stack.read_masks(path, item.layout, item.case.index, _shape(volume), rule, item.part(file))
        return _oriented(found, volume.original, item.orientation) if volume.placed else found
    return masks_of_volume(nifti_family.array_of(_label_volume(item, path, volume)), rule, item.part(file))


def _label_volume(item: CaseItem, path: Path, volume: Volume) -> sitk.Image:
    """One label file on the grid of `volume.oriented`."""
    label = geometry.orient(nifti_family.read_volume(path, item.card.frame), item.orientation)
    if item.card.label_grid == "own":
        return geometry.onto_grid(label, volume.oriented)
    geometry.check_same_grid(volume.oriented, label)
    return label


def label_numbers(item: CaseItem, file: str, volume: Volume) -> dict[str, NDArray[Any]]:
    """Instance numbers (z, y, x) by concept on the harmonized grid, of a label file that numbers its instances."""
    path, rule = item.path(file), item.rule
    if stacks.is_array(path, item.layout):
        found = stack.read_numbers(path, item.layout, item.case.index, _shape(volume), rule)
        if volume.placed:
            found = {concept: _oriented_array(ids, volume.original, item.orientation) for concept, ids in found.items()}
    elif isinstance(rule, InstanceIds):
        found = {rule.concept: nifti_family.array_of(_label_volume(item, path, volume))}
    else:
        return {}
    return {concept: geometry.regrid_numbers(ids, volume.oriented, volume.harmonized) for concept, ids in found.items()}


def regridded(masks: Masks, volume: Volume) -> Masks:
    """Masks of the oriented grid on the harmonized one."""
    return {concept: geometry.regrid_mask(mask, volume.oriented, volume.harmonized) for concept, mask in masks.items()}


def axes_of(card: DatasetCard, harmonized: sitk.Image) -> tuple[str, ...]:
    """The axes that slices are cut across: the card's, else the one of coarsest spacing."""
    return card.axes or (geometry.slicing_axis(harmonized.GetSpacing()),)


def planes(
    voxels: NDArray[np.uint8], masks: Masks, axis: str
) -> Iterator[tuple[int, NDArray[np.uint8], dict[str, Mask]]]:
    """Slices across `axis` of voxels (z, y, x) or (z, y, x, 3): number, pixels, and the masks that are not empty."""
    where = "zyx".index(axis)
    moved: dict[str, NDArray[np.bool_]] = {concept: np.moveaxis(mask, where, 0) for concept, mask in masks.items()}
    marked: dict[str, Mask] = {concept: np.asarray(plane.any(axis=(1, 2))) for concept, plane in moved.items()}
    for index, pixels in enumerate(np.moveaxis(voxels, where, 0)):
        yield index, pixels, {concept: plane[index] for concept, plane in moved.items() if marked[concept][index]}


def _segments(path: Path, rule: Segments, volume: Volume) -> Masks:
    return seg.read_segments(path, list(volume.uids), volume.original, threshold=rule.threshold, skip=rule.ignore)


def _regions(path: Path, rule: Contours, volume: Volume) -> Masks:
    return rtstruct.read_contours(path, list(volume.uids), volume.original, skip=rule.ignore, partial=rule.partial)


def _shape(volume: Volume) -> tuple[int, ...]:
    """(z, y, x) of the volume as it was stored."""
    return tuple(int(size) for size in reversed(volume.original.GetSize()))


def _oriented(masks: Masks, original: sitk.Image, orientation: str) -> Masks:
    """Masks on the original grid in the harmonized orientation."""
    return {
        concept: _oriented_array(mask.astype(np.uint8), original, orientation).astype(bool)
        for concept, mask in masks.items()
    }


def _oriented_array(array: NDArray[Any], original: sitk.Image, orientation: str) -> NDArray[Any]:
    image = sitk.GetImageFromArray(array)
    image.CopyInformation(original)
    return nifti_family.array_of(geometry.orient(image, orientation))
