"""Left and right: a truth whose left organ lies on the patient's right was drawn or stored the wrong way round."""

from __future__ import annotations

import re

import numpy as np
import SimpleITK as sitk

from infra.errors import CaseError
from preprocessing.harmonize.labels import Mask, Masks

# Structures of both sides may meet in the middle; that much further over, they have changed places.
_TOLERANCE_MM = 5.0
_LEFT = re.compile(r"\bleft\b")


def check_sides(masks: Masks, image: sitk.Image) -> None:
    """CaseError `sides` where a "left …" lies further to the right than its "right …".

    Masks are (z, y, x) on the grid of `image`. Judged by their centres in LPS millimetres, so that it does not
    matter how the voxels are stored. A concept without its counterpart says nothing.
    """
    for concept in sorted(masks):
        other = _LEFT.sub("right", concept)
        if other == concept or other not in masks:
            continue
        left, right = _centre_mm(masks[concept], image), _centre_mm(masks[other], image)
        if left is not None and right is not None and left < right - _TOLERANCE_MM:
            raise CaseError(
                "sides",
                expected=f"{concept} on the patient's left of {other}",
                found=f"its centre {right - left:.0f} mm to the right of the other's",
                fix="The label, or the direction in a header, is the wrong way round: find out which",
            )


def _centre_mm(mask: Mask, image: sitk.Image) -> float | None:
    """How far to the patient's left the centre of a mask is, in mm; None where it is empty."""
    places = np.nonzero(mask)
    if places[0].size == 0:
        return None
    z, y, x = (float(axis.mean()) for axis in places)
    return float(image.TransformContinuousIndexToPhysicalPoint((x, y, z))[0])
