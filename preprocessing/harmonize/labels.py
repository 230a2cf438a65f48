"""Label pictures to masks by concept, as the card's rule says.

Every function returns {concept: bool mask} of the label's shape, or raises CaseError `unknown_label`
when the picture holds something that the card does not name: guessing would be silent damage.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.errors import CaseError
from preprocessing.cards import (
    Binary,
    ByChannel,
    ByColour,
    ByFile,
    ByValue,
    Coco,
    Contours,
    InstanceIds,
    LabelRule,
    Outline,
    Polygons,
    RunLengths,
    Segments,
    Sprites,
)

_ROUNDING = 1e-3  # what a scale and an offset in float32 leave of a whole number

Mask = NDArray[np.bool_]
Masks = dict[str, Mask]

_FEW = 8


def masks_of(label: NDArray[Any], rule: LabelRule, part: str = "") -> Masks:
    """Masks of a label array: any shape for values, (height, width, 3) for colours, (…, channels) for channels.

    `part` is the file's `(?P<part>…)`.
    """
    match rule:
        case ByValue():
            return by_value(label, rule)
        case ByColour():
            return by_colour(label, rule)
        case Binary():
            return binary(label, rule)
        case Outline():
            return {rule.concept: filled(binary(label, Binary(rule.concept, rule.threshold))[rule.concept])}
        case ByFile():
            return by_file(label, rule, part)
        case ByChannel():
            return by_channel(label, rule)
        case InstanceIds():
            return {rule.concept: _integers(_one_channel(label)) > 0}
        case Segments() | Contours() | Polygons() | Coco() | Sprites() | RunLengths():
            what = f"a file for the rule {type(rule).__name__}"
            raise CaseError("label_kind", expected=what, found="a label picture or array")


def masks_of_volume(label_zyx: NDArray[Any], rule: LabelRule, part: str = "") -> Masks:
    """Masks (z, y, x) of a label volume. Its last axis is x: three voxels along it are no red, green and blue."""
    if isinstance(rule, ByColour | ByChannel) or label_zyx.ndim != 3:
        return masks_of(label_zyx, rule, part)
    flat = masks_of(label_zyx.ravel(), rule, part)
    return {concept: mask.reshape(label_zyx.shape) for concept, mask in flat.items()}


def concept_named(name: str, names: Mapping[str, str], ignore: tuple[str, ...], what: str) -> str | None:
    """The concept of a label's own name, in lower case; None where the card ignores it; CaseError `unknown_label`."""
    plain = name.strip().lower()
    if plain in names:
        return names[plain]
    if plain in ignore:
        return None
    known = ", ".join(repr(key) for key in names)
    raise _unknown(f"{what} named {known}", f"{what} named {plain!r}")


def by_value(label: NDArray[Any], rule: ByValue) -> Masks:
    """Each value goes to the nearest code within the tolerance."""
    label = _integers(_one_channel(label))
    if rule.tolerance == 0 and (exact := _by_code(label, rule)) is not None:
        return exact
    codes = np.array([rule.background, *rule.values, *rule.ignore], dtype=np.int64)
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
    if rule.background in rule.values:
        return None  # a code with two meanings: left to the search
    others = {rule.background, *rule.ignore} - set(rule.values)  # no pixel may count twice
    masks: Masks = {}
    known = sum(int(np.count_nonzero(label == value)) for value in others)
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
    packed = label[..., 0].astype(np.uint32)  # channel by channel: a sum over an axis of three is far slower
    for channel in (1, 2):
        packed <<= 8
        packed |= label[..., channel].astype(np.uint32)
    present = np.unique(packed)
    colours = np.stack([(present >> shift) & 255 for shift in (16, 8, 0)], axis=1).astype(np.int64)
    codes = np.array([(0, 0, 0), *(colour for colour, _ in rule.colours), *rule.ignore], dtype=np.int64)
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
        mask = _any_of(packed, members)
        masks[concept] = masks[concept] | mask if concept in masks else mask
    return masks


def _any_of(label: NDArray[Any], values: NDArray[Any]) -> Mask:
    """Where a label has one of some values; a few are compared one by one, which is quicker than a search."""
    if values.size > _FEW:
        return np.isin(label, values)
    mask = np.zeros(label.shape, dtype=bool)
    for value in values:
        mask |= label == value
    return mask


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
    # 64 to 191, in one comparison: less 64, and what was below has gone round to above
    between = float(np.count_nonzero(grey - np.uint8(64) < 128)) / grey.size
    if between > rule.max_between:
        raise _unknown(
            f"a binary mask: at most {rule.max_between:.0%} of its pixels grey",
            f"{between:.1%} of the pixels between 64 and 191",
        )
    mask = grey > rule.threshold
    return {rule.concept: ~mask if rule.inverted else mask}


def by_file(label: NDArray[Any], rule: ByFile, part: str) -> Masks:
    """The binary mask of one structure, whose name is `part` of the file's path."""
    concept = concept_named(part, rule.names, rule.ignore, "a file of a structure")
    if concept is None:
        return {}
    if label.dtype == bool:
        return {concept: label}
    grey = _integers(_one_channel(label, tolerance=24))
    values = np.unique(grey)
    if values.size <= 2 and int(values[0]) == 0:  # 0 and one other value, whatever it is
        return {concept: grey != 0}
    return binary(grey, Binary(concept, rule.threshold))


def by_channel(label: NDArray[Any], rule: ByChannel) -> Masks:
    """One mask a channel, channels last."""
    if label.ndim not in (3, 4):
        raise _unknown("a label array with an axis of channels", f"an array of shape {label.shape}")
    missing = sorted(set(rule.channels) - set(range(label.shape[-1])))
    if missing:
        raise _unknown(f"channels up to {max(rule.channels)}", f"{label.shape[-1]} channels")
    masks: Masks = {}
    for channel in range(label.shape[-1]):
        values = label[..., channel]
        if channel in rule.ignore:
            continue
        mask = _integers(values) != 0
        if channel in rule.channels:
            concept = rule.channels[channel]
            masks[concept] = masks[concept] | mask if concept in masks else mask
        elif mask.any():
            raise _unknown(f"marks in channels {', '.join(map(str, rule.channels))}", f"marks in channel {channel}")
    return masks


def filled(line: Mask) -> Mask:
    """What closed lines (height, width) enclose, and the lines; the edge of the picture closes lines that it cuts.

    Of cut lines the inside is what lies within their convex hull: an oval that is larger than the picture
    leaves two arcs. CaseError `outline` where a drawn line encloses nothing.
    """
    from scipy import ndimage

    closed: Mask = ndimage.binary_fill_holes(line)
    numbered, count = ndimage.label(line, structure=np.ones((3, 3), dtype=bool))
    lines_open = np.zeros(line.shape, dtype=bool)
    opened = 0
    for number, place in enumerate(ndimage.find_objects(numbered), start=1):
        own = numbered[place] == number
        if np.count_nonzero(ndimage.binary_fill_holes(own)) == np.count_nonzero(own):
            lines_open[place] |= own
            opened += 1
    if not opened:
        return closed
    # Of one line the outer side has no part in its hull; a quarter of an oval, cut by a corner, has a third there.
    inside = _within_hull(lines_open, least=0.25 if opened == 1 else 0.9)
    at_edge = inside[[0, -1]].any() or inside[:, [0, -1]].any()
    if not at_edge or np.count_nonzero(inside) == np.count_nonzero(lines_open):
        raise CaseError(
            "outline",
            expected="closed lines, or lines that the edge of the picture closes",
            found=f"{opened} of {count} line(s), {np.count_nonzero(lines_open)} pixels, that enclose nothing",
            fix="Close the outline, or give the card another label rule",
        )
    return closed | inside


def _within_hull(line: Mask, least: float) -> Mask:
    """Lines, with those regions between them and the edge of which a share of `least` lies within their convex hull."""
    from pycocotools import mask as coco
    from scipy import ndimage
    from scipy.spatial import ConvexHull, QhullError

    points = np.argwhere(line)[:, ::-1] + 0.5
    try:
        hull = points[ConvexHull(points).vertices]
    except QhullError:  # a straight line
        return line
    height, width = line.shape
    region = coco.decode(coco.frPyObjects([hull.ravel().tolist()], height, width))[..., 0].astype(bool) | line
    beside, count = ndimage.label(~line)
    sizes = np.bincount(beside.ravel(), minlength=count + 1)
    within = np.bincount(beside[region], minlength=count + 1)
    inside = [number for number in range(1, count + 1) if within[number] >= least * sizes[number]]
    result: Mask = line | np.isin(beside, inside)
    return result


def by_segment(segments: dict[str, Mask], rule: Segments | Contours) -> Masks:
    """Segments of a DICOM-SEG or ROIs of an RTSTRUCT to concepts by their names; equal concepts are united."""
    masks: Masks = {}
    for label, mask in segments.items():
        concept = concept_named(label, rule.names, rule.ignore, "a segment")
        if concept is not None:
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
        if not bool(np.all(np.abs(label - rounded) <= _ROUNDING)):  # NaN is further from everything
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
