"""Raw intensities to 8 bits, by the card's rule, with the numbers that were used."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.errors import CaseError
from preprocessing.cards import Intensity


def to_8bit(pixels: NDArray[Any], rule: Intensity) -> tuple[NDArray[np.uint8], dict[str, Any]]:
    """Map an array of any shape to uint8; the record has the rule and, where values moved, `low` and `high`.

    `value ≈ low + byte / 255 * (high - low)` inverts it within the limits. Raises CaseError
    (`intensity`) for NaN, and for more than 8 bits under the rule `as_is`.
    """
    if rule.rule == "as_is":
        if pixels.dtype == bool:
            return pixels.astype(np.uint8) * np.uint8(255), {"rule": "as_is"}
        if pixels.dtype != np.uint8:
            raise CaseError(
                "intensity",
                expected="8-bit pixels, as the card says",
                found=f"{pixels.dtype} pixels",
                fix="Give the card an Intensity rule: window or percentile",
            )
        return pixels, {"rule": "as_is"}
    value = pixels.astype(np.float32, copy=False)
    if not np.isfinite(value).all():
        raise CaseError("intensity", expected="finite intensities", found="NaN or infinite voxels")
    low, high = rule.limits if rule.rule == "window" else _percentiles(value, rule.limits)
    scale = 255.0 / (high - low) if high > low else 0.0
    scaled = np.clip(np.rint((value - np.float32(low)) * np.float32(scale)), 0, 255).astype(np.uint8)
    return scaled, {"rule": rule.rule, "limits": list(rule.limits), "low": low, "high": high}


def _percentiles(value: NDArray[np.float32], limits: tuple[float, float]) -> tuple[float, float]:
    """Percentiles over the foreground: voxels above the minimum, which is air or padding in MR and ultrasound."""
    foreground = value[value > value.min()]
    if foreground.size == 0:
        return float(value.min()), float(value.min())
    low, high = np.percentile(foreground, limits)
    return float(low), float(high)
