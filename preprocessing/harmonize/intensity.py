"""Raw intensities to 8 bits, by the card's rule, with the numbers that were used."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.errors import CaseError
from preprocessing.cards import Intensity
from preprocessing.readers.voi import Voi

Record = dict[str, Any]


def to_8bit(
    pixels: NDArray[Any], rule: Intensity, *, inverted: bool = False, voi: Voi | None = None
) -> tuple[NDArray[np.uint8], Record]:
    """Map an array of any shape to uint8; the record has the rule and, where values moved, `low` and `high`.

    `value ≈ low + byte / 255 * (high - low)` inverts it within the limits; where `inverted` (MONOCHROME1:
    small values are bright) the record says so, and `255 - byte` stands for the byte. Three windows give a
    last axis of three channels and a record with `windows`, one (low, high) a channel. `voi` is what the file
    says about its display; its record has `inverse`, a value for each byte. Raises CaseError (`intensity`)
    for NaN, and for more than 8 bits under the rule `as_is`.
    """
    if rule.rule == "as_is":
        return _as_is(pixels, inverted)
    value = pixels.astype(np.float32, copy=False)
    lowest, highest = value.min(initial=np.inf), value.max(initial=-np.inf)  # NaN in one voxel is NaN in both
    if not (np.isfinite(lowest) and np.isfinite(highest)):
        raise CaseError("intensity", expected="finite intensities", found="NaN or infinite voxels")
    if rule.rule == "voi" and voi is not None:
        byte = np.rint(voi.apply(value) * np.float32(255)).astype(np.uint8)
        return _turned(byte, {"rule": "voi", "kind": voi.kind, "inverse": voi.inverse()}, inverted)
    if rule.windows:
        channels = [_scaled(value, low, high) for low, high in rule.windows]
        windows = [list(window) for window in rule.windows]
        return _turned(np.stack(channels, axis=-1), {"rule": "window", "windows": windows}, inverted)
    if rule.rule == "window":
        limits, (low, high) = rule.limits, rule.limits
    else:
        limits = rule.limits
        low, high = _percentiles(-value, -highest, limits) if inverted else _percentiles(value, lowest, limits)
        low, high = (-high, -low) if inverted else (low, high)
    name = "window" if rule.rule == "window" else "percentile"
    return _turned(
        _scaled(value, low, high), {"rule": name, "limits": list(limits), "low": low, "high": high}, inverted
    )


def check_not_blank(pixels: NDArray[np.uint8], marked: bool) -> None:
    """CaseError `blank` where something is marked in a volume of one value: whatever was marked, it is not in there."""
    if marked and pixels.size and pixels.min() == pixels.max():
        raise CaseError(
            "blank",
            expected="a volume in which the marked objects can be seen",
            found="one value in every voxel (NaN reads as 0 in NIfTI)",
            fix="Copy or convert the image again; or mend the card's window",
        )


def _as_is(pixels: NDArray[Any], inverted: bool) -> tuple[NDArray[np.uint8], Record]:
    if pixels.dtype == bool:
        return _turned(pixels.astype(np.uint8) * np.uint8(255), {"rule": "as_is"}, inverted)
    if pixels.dtype.kind == "f" and pixels.size:  # 8 bits that some program stored as floats, exactly
        whole = pixels.astype(np.uint8) if pixels.min() >= 0 and pixels.max() <= 255 else None
        if whole is not None and np.array_equal(whole, pixels):
            return _turned(whole, {"rule": "as_is"}, inverted)
    if pixels.dtype != np.uint8:
        raise CaseError(
            "intensity",
            expected="8-bit pixels, as the card says",
            found=f"{pixels.dtype} pixels",
            fix="Give the card an Intensity rule: window or percentile",
        )
    return _turned(pixels, {"rule": "as_is"}, inverted)


def _turned(byte: NDArray[np.uint8], record: Record, inverted: bool) -> tuple[NDArray[np.uint8], Record]:
    """Small values bright where the file says so."""
    if not inverted:
        return byte, record
    return np.uint8(255) - byte, {**record, "inverted": True}


def _scaled(value: NDArray[np.float32], low: float, high: float) -> NDArray[np.uint8]:
    """Low to 0 and high to 255, rounded and clipped, a plane at a time: what fits in the cache is done at once."""
    offset, scale = np.float32(low), np.float32(255.0 / (high - low) if high > low else 0.0)
    out = np.empty(value.shape, dtype=np.uint8)
    planes, targets = (value, out) if value.ndim > 2 else (value[None], out[None])
    spare = np.empty(planes.shape[1:], dtype=np.float32)
    for plane, target in zip(planes, targets, strict=True):
        np.subtract(plane, offset, out=spare)
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
