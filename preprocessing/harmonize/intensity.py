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
    lowest, highest = value.min(), value.max()  # NaN in one voxel is NaN in both
    if not (np.isfinite(lowest) and np.isfinite(highest)):
        raise CaseError("intensity", expected="finite intensities", found="NaN or infinite voxels")
    low, high = rule.limits if rule.rule == "window" else _percentiles(value, lowest, rule.limits)
    scale = 255.0 / (high - low) if high > low else 0.0
    scaled = _scaled(value, np.float32(low), np.float32(scale))
    return scaled, {"rule": rule.rule, "limits": list(rule.limits), "low": low, "high": high}


def _scaled(value: NDArray[np.float32], low: np.float32, scale: np.float32) -> NDArray[np.uint8]:
    """`(value - low) * scale` rounded into 0..255, a plane at a time: what fits in the cache is done at once."""
    out = np.empty(value.shape, dtype=np.uint8)
    planes, targets = (value, out) if value.ndim > 2 else (value[None], out[None])
    spare = np.empty(planes.shape[1:], dtype=np.float32)
    for plane, target in zip(planes, targets, strict=True):
        np.subtract(plane, low, out=spare)
        np.multiply(spare, scale, out=spare)
        np.rint(spare, out=spare)
        np.clip(spare, 0, 255, out=spare)
        target[...] = spare
    return out


def _percentiles(value: NDArray[np.float32], lowest: np.float32, limits: tuple[float, float]) -> tuple[float, float]:
    """Percentiles over the foreground: voxels above the minimum, which is air or padding in MR and ultrasound."""
    foreground = value[value > lowest]
    if foreground.size == 0:
        return float(lowest), float(lowest)
    low, high = np.percentile(foreground, limits)
    return float(low), float(high)
