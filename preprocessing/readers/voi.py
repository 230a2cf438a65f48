"""How a DICOM picture is meant to be seen: its VOI LUT or window (PS3.3 C.11.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Voi:
    """A display function of modality values: `window` (low to high), `sigmoid` (centre, width) or `lut`.

    `table` holds the outputs of a LUT for the inputs `first`, `first` + 1, …, scaled to 0…1.
    """

    kind: Literal["window", "sigmoid", "lut"]
    low: float = 0.0
    high: float = 0.0
    first: int = 0
    table: tuple[float, ...] = ()

    def apply(self, value: NDArray[np.float32]) -> NDArray[np.float32]:
        """Modality values of any shape to brightness between 0 and 1."""
        if self.kind == "lut":
            table = np.array(self.table, dtype=np.float32)
            at = np.clip(np.rint(value).astype(np.int64) - self.first, 0, table.size - 1)
            seen: NDArray[np.float32] = table[at]
            return seen
        if self.kind == "sigmoid":
            centre, width = (self.low + self.high) / 2, self.high - self.low
            return np.asarray(1.0 / (1.0 + np.exp(-4.0 * (value - centre) / width)), dtype=np.float32)
        return np.asarray(np.clip((value - self.low) / (self.high - self.low), 0.0, 1.0), dtype=np.float32)

    def inverse(self) -> list[float]:
        """For each byte 0…255 a modality value that gives it, or the nearest one below: what the record keeps."""
        if self.kind == "lut":
            rising = np.maximum.accumulate(np.array(self.table))
            at = np.searchsorted(rising, (np.arange(256) - 0.5) / 255, side="left")
            return [float(each) for each in self.first + np.clip(at, 0, rising.size - 1)]
        share = np.clip(np.arange(256) / 255, 1e-3, 1 - 1e-3) if self.kind == "sigmoid" else np.arange(256) / 255
        if self.kind == "sigmoid":
            centre, width = (self.low + self.high) / 2, self.high - self.low
            return [float(each) for each in centre - width / 4 * np.log(1 / share - 1)]
        return [float(each) for each in self.low + share * (self.high - self.low)]


def voi_of(header: Any) -> Voi | None:
    """The first VOI LUT, else the first window of a header (or of a frame's VOI item); None where there is none.

    Raises ValueError for one that says nothing: a window without width, a LUT of another length.
    """
    sequence = header.get("VOILUTSequence")
    if sequence:
        return _lut(sequence[0])
    centre, width = _first(header.get("WindowCenter")), _first(header.get("WindowWidth"))
    if centre is None or width is None:
        return None
    function = str(header.get("VOILUTFunction") or "LINEAR")
    if not (np.isfinite(centre) and width >= (1 if function == "LINEAR" else 0) and width > 0):
        msg = f"a window of centre {centre} and width {width}"
        raise ValueError(msg)
    if function == "LINEAR":
        # C.11.2.1.2.1: the grey levels are whole numbers, hence the half and the one; width 1 is a threshold
        low, high = centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2
        return Voi("window", low, max(high, low + 1e-3))
    return Voi("sigmoid" if function == "SIGMOID" else "window", centre - width / 2, centre + width / 2)


def _lut(item: Any) -> Voi:
    entries, first, bits = (int(part) for part in item.LUTDescriptor)
    entries = entries or 65536
    data = item.LUTData
    if isinstance(data, bytes):
        data = np.frombuffer(data, dtype="<u2" if len(data) >= 2 * entries else "u1")
    table = np.asarray(data, dtype=np.float64)
    if table.size != entries:
        msg = f"a VOI LUT of {table.size} entries whose descriptor says {entries}"
        raise ValueError(msg)
    # a signed first value arrives as unsigned where the pixels are unsigned: PS3.3 C.11.2.1.1
    return Voi("lut", first=first, table=tuple((table / (2**bits - 1)).clip(0.0, 1.0).tolist()))


def _first(value: Any) -> float | None:
    if value is None or value == "":
        return None
    return float(value[0] if isinstance(value, list | tuple) or hasattr(value, "append") else value)
