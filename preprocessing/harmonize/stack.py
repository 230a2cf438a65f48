"""Volumes that come as arrays or as pages of a TIFF: voxels without a frame of their own, placed as the card says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from infra.errors import CaseError
from preprocessing.cards import ByChannel, InstanceIds, LabelRule, Layout
from preprocessing.harmonize.labels import Masks, masks_of_volume
from preprocessing.readers import arrays, stacks
from preprocessing.readers.nifti_family import check_spacing

Numbers = dict[str, NDArray[Any]]


def has_spacing(layout: Layout) -> bool:
    """Whether the card knows how far voxels of its arrays are apart."""
    return layout.spacing_mm_zyx is not None or "spacing" in layout.geometry_keys


def read_volume(path: Path, layout: Layout, index: int | None) -> sitk.Image:
    """The volume with the card's geometry; without one, voxels of 1 along the axes of LPS, which means nothing.

    Raises CaseError `dimensions`, `spacing`, and what the readers raise.
    """
    voxels = stacks.read_image_array(path, layout, index)
    if voxels.ndim == 4 and voxels.shape[3] == 1:
        voxels = voxels[..., 0]
    if voxels.ndim != 3:
        raise CaseError("dimensions", expected="a volume (z, y, x) of one channel", found=f"shape {voxels.shape}")
    if voxels.dtype == bool or voxels.dtype == np.float16:
        voxels = voxels.astype(np.uint8 if voxels.dtype == bool else np.float32)
    image = sitk.GetImageFromArray(voxels)
    keys = layout.geometry_keys
    if layout.spacing_mm_zyx is not None:
        image.SetSpacing([float(value) for value in reversed(layout.spacing_mm_zyx)])
    if "spacing" in keys:
        spacing = _numbers(path, keys["spacing"], 3)
        check_spacing(spacing)
        image.SetSpacing(spacing)
    if "origin" in keys:
        image.SetOrigin(_numbers(path, keys["origin"], 3))
    if "direction" in keys:
        cosines = np.array(_numbers(path, keys["direction"], 9)).reshape(3, 3)
        if np.abs(cosines.T @ cosines - np.eye(3)).max() > 1e-3:
            raise CaseError(
                "spacing", expected="a direction of three axes at right angles", found=f"{cosines.tolist()}"
            )
        image.SetDirection(cosines.ravel().tolist())
    return image


def read_masks(
    path: Path, layout: Layout, index: int | None, shape: tuple[int, ...], rule: LabelRule, part: str
) -> Masks:
    """Masks (z, y, x) of one label file for a volume of `shape`, on its own grid."""
    return masks_of_volume(stacks.read_label_array(path, layout, index, shape, rule), rule, part)


def read_numbers(path: Path, layout: Layout, index: int | None, shape: tuple[int, ...], rule: LabelRule) -> Numbers:
    """Concept -> instance numbers (z, y, x), for the rules that have them; nothing for the others."""
    if layout.instance_key:
        ids = stacks.read_label_array(path, layout, index, shape, None, layout.instance_key)
        masks = masks_of_volume(stacks.read_label_array(path, layout, index, shape, rule), rule)
        return {concept: np.where(mask, ids, 0) for concept, mask in masks.items()}
    if isinstance(rule, InstanceIds):
        return {rule.concept: stacks.read_label_array(path, layout, index, shape, rule)}
    if isinstance(rule, ByChannel) and rule.instance_ids:
        label = stacks.read_label_array(path, layout, index, shape, rule)
        return {concept: label[..., channel] for channel, concept in rule.channels.items()}
    return {}


def _numbers(path: Path, key: str, count: int) -> list[float]:
    values = arrays.read_array(path, key).ravel()
    if values.size != count or not np.isfinite(values).all():
        raise CaseError("spacing", expected=f"{count} finite numbers in {key!r}", found=f"{values[:12].tolist()}")
    return [float(value) for value in values]
