"""Label pictures to masks by concept, as the card's rule says.

Every function returns {concept: bool mask} of the label's shape, or raises CaseError `unknown_label`
when the picture holds something that the card does not name: guessing would be silent damage.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.errors import CaseError
from preprocessing.cards import Binary, ByColour, ByValue, InstanceIds, LabelRule, Segments

Mask = NDArray[np.bool_]
Masks = dict[str, Mask]


def masks_of(label: NDArray[Any], rule: LabelRule) -> Masks:
    """Masks of a label array (any shape for values, (height, width, 3) for colours)."""
    match rule:
        case ByValue():
            return by_value(label, rule)
        case ByColour():
            return by_colour(label, rule)
        case Binary():
            return binary(label, rule)
        case InstanceIds():
            return {rule.concept: _one_channel(label) > 0}
        case Segments():
            raise CaseError("label_kind", expected="a DICOM-SEG, as the card says", found="another kind of file")


def by_value(label: NDArray[Any], rule: ByValue) -> Masks:
    """Each value goes to the nearest code within the tolerance."""
    label = _integers(_one_channel(label))
    if rule.tolerance == 0 and (exact := _by_code(label, rule)) is not None:
        return exact
    codes = np.array([rule.background, *rule.values], dtype=np.int64)
    present, inverse_needed = np.unique(label), rule.tolerance > 0
    distance = np.abs(present.astype(np.int64)[:, None] - codes[None, :])
    nearest = distance.argmin(axis=1)
    unknown = present[distance[np.arange(present.size), nearest] > rule.tolerance]
    if unknown.size:
        raise _unknown(
            f"values {', '.join(str(code) for code in sorted(codes.tolist()))}"
            + (f" within {rule.tolerance}" if rule.tolerance else ""),
            f"values {', '.join(str(value) for value in unknown[:8].tolist())}",
        )
    masks: Masks = {}
    for index, concept in enumerate(rule.values.values(), start=1):
        members = present[nearest == index]
        if members.size == 0:
            mask = np.zeros(label.shape, dtype=bool)
        else:
            mask = np.isin(label, members) if inverse_needed and members.size > 1 else label == members[0]
        masks[concept] = masks[concept] | mask if concept in masks else mask
    return masks


def _by_code(label: NDArray[Any], rule: ByValue) -> Masks | None:
    """Masks of a label that holds the rule's codes and nothing else, else None: no search for its values is needed."""
    masks: Masks = {}
    known = int(np.count_nonzero(label == rule.background))
    for value, concept in rule.values.items():
        mask: Mask = label == value
        known += int(np.count_nonzero(mask))
        masks[concept] = masks[concept] | mask if concept in masks else mask
    return masks if known == label.size else None


def by_colour(label: NDArray[Any], rule: ByColour) -> Masks:
    """Each colour goes to the nearest code (largest difference of a channel) within the tolerance."""
    if label.ndim == 2 and not label.any():
        label = np.zeros((*label.shape, 3), dtype=np.uint8)
    if label.ndim != 3 or label.shape[2] != 3:
        raise _unknown("a colour label picture", f"an array of shape {label.shape}")
    packed = (label.astype(np.uint32) * np.array([1 << 16, 1 << 8, 1], dtype=np.uint32)).sum(axis=2, dtype=np.uint32)
    present = np.unique(packed)
    colours = np.stack([(present >> shift) & 255 for shift in (16, 8, 0)], axis=1).astype(np.int64)
    codes = np.array([(0, 0, 0), *(colour for colour, _ in rule.colours)], dtype=np.int64)
    distance = np.abs(colours[:, None, :] - codes[None, :, :]).max(axis=2)
    nearest = distance.argmin(axis=1)
    unknown = colours[distance[np.arange(present.size), nearest] > rule.tolerance]
    if unknown.size:
        expected = "black, " + ", ".join(str(colour) for colour, _ in rule.colours)
        raise _unknown(
            f"the colours {expected} within {rule.tolerance}", f"colour {tuple(unknown[0].tolist())} among others"
        )
    masks: Masks = {}
    for index, (_, concept) in enumerate(rule.colours, start=1):
        members = present[nearest == index]
        mask = np.isin(packed, members) if members.size else np.zeros(packed.shape, dtype=bool)
        masks[concept] = masks[concept] | mask if concept in masks else mask
    return masks


def binary(label: NDArray[Any], rule: Binary) -> Masks:
    """Brighter than the threshold, or not brighter where inverted."""
    if label.dtype == bool:
        return {rule.concept: ~label if rule.inverted else label}
    grey = _one_channel(label, tolerance=24)
    if grey.dtype != np.uint8:
        raise _unknown("8-bit grey or 1-bit pixels", f"{grey.dtype} pixels")
    brightest = int(grey.max(initial=0))
    if 0 < brightest < 64:
        raise _unknown("a mask of dark and bright pixels", f"brightest value {brightest}; ByValue reads 0/1 masks")
    between = float(np.count_nonzero((grey > 63) & (grey < 192))) / grey.size
    if between > rule.max_between:
        raise _unknown(
            f"a binary mask: at most {rule.max_between:.0%} of its pixels grey",
            f"{between:.1%} of the pixels between 64 and 191",
        )
    mask = grey > rule.threshold
    return {rule.concept: ~mask if rule.inverted else mask}


def by_segment(segments: dict[str, Mask], rule: Segments) -> Masks:
    """Segments of a DICOM-SEG to concepts by their labels; equal concepts are united."""
    masks: Masks = {}
    for label, mask in segments.items():
        if label in rule.ignore:
            continue
        if label not in rule.names:
            raise _unknown(f"segments {', '.join(rule.names)}", f"a segment {label!r}")
        concept = rule.names[label]
        masks[concept] = masks[concept] | mask if concept in masks else mask
    return masks


def dice(left: Mask, right: Mask) -> float | None:
    """Dice of two masks; None where both are empty."""
    total = int(left.sum()) + int(right.sum())
    return 2.0 * int((left & right).sum()) / total if total else None


def _integers(label: NDArray[Any]) -> NDArray[Any]:
    if label.dtype == bool:
        return label.astype(np.uint8)
    if np.issubdtype(label.dtype, np.floating):
        rounded = np.rint(label)
        if not np.array_equal(rounded, label):
            raise _unknown("whole numbers", f"{label.dtype} values with fractions")
        whole: NDArray[np.int32] = rounded.astype(np.int32)
        return whole
    return label


def _one_channel(label: NDArray[Any], tolerance: int = 0) -> NDArray[Any]:
    """Grey stored as RGB becomes one channel; colours beyond `tolerance` are not grey."""
    if label.ndim < 3 or label.shape[-1] != 3 or label.dtype != np.uint8:
        return label
    red, green, blue = (label[..., index] for index in range(3))
    # Pairwise: a reduction over an axis of three is twenty times slower. Largest less smallest fits in 8 bits.
    apart = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    spread = int(apart.max(initial=0))
    if spread > tolerance:
        raise _unknown("a grey label picture", f"colours (channels up to {spread} apart)")
    first: NDArray[Any] = label[..., 0]
    return first


def _unknown(expected: str, found: str) -> CaseError:
    return CaseError("unknown_label", expected=expected, found=found, fix="Correct the label or the card's label rule")
