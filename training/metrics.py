"""Overlap of two binary masks.

Both empty: 1.0, for nothing was to be found and nothing was claimed. One empty: 0.0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


def dice_iou(truth: Mask, predicted: Mask) -> tuple[float, float]:
    """Dice coefficient and intersection over union of masks of equal shape (any number of axes)."""
    if truth.shape != predicted.shape:
        msg = f"masks must have one shape, found {truth.shape} and {predicted.shape}"
        raise ValueError(msg)
    both = int(np.count_nonzero(truth & predicted))
    total = int(np.count_nonzero(truth)) + int(np.count_nonzero(predicted))
    if total == 0:
        return 1.0, 1.0
    return 2 * both / total, both / (total - both)
