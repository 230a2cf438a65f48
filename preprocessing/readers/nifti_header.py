"""NIfTI headers as they are written, and whether what they say about space holds together.

ITK repairs a header in silence: a spacing of 0 or NaN becomes 1 mm, a scale of the sform that is not the
spacing is dropped, a negative spacing mirrors an axis. So the header is judged here before ITK reads it:

- spacings are positive and finite;
- where sform and qform are both set they agree; which of the two is right only the owner knows;
- where only one is set it holds: its axes are at right angles and its scales are the spacing;
- where neither is set the axes are taken as stored, with the spacing: nothing contradicts it.
"""

from __future__ import annotations

import gzip
import math
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from infra.errors import CaseError

HEADER_BYTES = 540  # of the longer of the two headers, NIfTI-2
SUFFIXES = (".nii", ".nii.gz")
# Two affines of one header may differ by float rounding; a corner of the volume may move this far.
_AFFINE_TOLERANCE_MM = 0.1
_RIGHT_ANGLE_TOLERANCE = 1e-3  # cosine between two axes of an sform
_MM_PER_UNIT = {1: 1000.0, 2: 1.0, 3: 0.001}  # xyzt_units: metre, millimetre, micrometre


@dataclass(frozen=True)
class NiftiHeader:
    """What a NIfTI-1 or NIfTI-2 header says (nifti1.h, nifti2.h). Affines are 3 × 4, RAS, in the file's unit."""

    size: tuple[int, ...]  # x, y, z, t, …
    bits: int
    offset: float
    pixdim: tuple[float, ...]  # pixdim[0] is the handedness of the qform
    qform_code: int
    sform_code: int
    quaternion: tuple[float, ...]  # b, c, d and the offsets x, y, z
    sform: NDArray[np.float64]
    unit_mm: float
    version: int = 1

    @property
    def promised_bytes(self) -> int:
        """Bytes of the file up to its last voxel."""
        return int(self.offset) + math.prod(max(1, each) for each in self.size) * self.bits // 8

    @property
    def qform(self) -> NDArray[np.float64]:
        """The affine of the quaternion (nifti1.h, method 2)."""
        b, c, d = self.quaternion[:3]
        a = math.sqrt(max(0.0, 1.0 - (b * b + c * c + d * d)))
        rotation = np.array(
            [
                [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
                [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
                [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
            ]
        )
        handed = -1.0 if self.pixdim[0] < 0 else 1.0
        scaled = rotation * np.array([self.pixdim[1], self.pixdim[2], self.pixdim[3] * handed])
        return np.hstack([scaled, np.array(self.quaternion[3:])[:, None]])


def is_nifti_name(path: Path) -> bool:
    """Whether a file's name says NIfTI."""
    return path.name.lower().endswith(SUFFIXES)


def is_packed(path: Path) -> bool:
    """Whether a file is gzip, whatever its name says: downloads are unpacked on the way and keep their names."""
    with path.open("rb") as handle:
        return handle.read(2) == b"\x1f\x8b"


def read_nifti_header(path: Path) -> NiftiHeader:
    """The header of `path` (.nii or .nii.gz). Raises what `gzip` and `struct` raise, and CaseError `unreadable`."""
    with gzip.open(path, "rb") if is_packed(path) else path.open("rb") as handle:
        return parse(handle.read(HEADER_BYTES))


def parse(header: bytes) -> NiftiHeader:
    """A header of either version and byte order. Raises struct.error, and CaseError `unreadable`."""
    if len(header) < 348:
        raise not_whole(f"{len(header)} bytes, fewer than a header has")
    for order in "<>":
        (size,) = struct.unpack_from(f"{order}i", header, 0)
        if size == 348:
            (bits,) = struct.unpack_from(f"{order}h", header, 72)
            (offset,) = struct.unpack_from(f"{order}f", header, 108)
            dim = struct.unpack_from(f"{order}8h", header, 40)
            pixdim = struct.unpack_from(f"{order}8f", header, 76)
            codes = struct.unpack_from(f"{order}2h", header, 252)
            numbers = struct.unpack_from(f"{order}18f", header, 256)
            units = header[123]
        elif size == 540:
            (bits,) = struct.unpack_from(f"{order}h", header, 14)
            dim = struct.unpack_from(f"{order}8q", header, 16)
            pixdim = struct.unpack_from(f"{order}8d", header, 104)
            (offset,) = struct.unpack_from(f"{order}q", header, 168)
            codes = struct.unpack_from(f"{order}2i", header, 344)
            numbers = struct.unpack_from(f"{order}18d", header, 352)
            (units,) = struct.unpack_from(f"{order}i", header, 500)
        else:
            continue
        if not 1 <= dim[0] <= 7 or bits <= 0 or not math.isfinite(offset):
            raise not_whole(f"a header with {dim[0]} dimensions of {bits} bits at byte {offset}")
        return NiftiHeader(
            size=tuple(int(each) for each in dim[1 : int(dim[0]) + 1]),
            bits=int(bits),
            offset=float(offset),
            pixdim=pixdim,
            qform_code=int(codes[0]),
            sform_code=int(codes[1]),
            quaternion=numbers[:6],
            sform=np.array(numbers[6:]).reshape(3, 4),
            unit_mm=_MM_PER_UNIT.get(int(units) & 7, 1.0),
            version=1 if size == 348 else 2,
        )
    raise not_whole("no NIfTI header")


def not_whole(found: str) -> CaseError:
    """The refusal of a file that is not all there."""
    return CaseError(
        "unreadable",
        expected="a NIfTI file that is whole",
        found=found,
        fix="Fetch the file again, or leave the case out",
    )


def check_space(header: NiftiHeader) -> None:
    """CaseError unless spacings and affines hold together: `spacing`, `affine_conflict`, `shear`."""
    spacing = [value * header.unit_mm for value in header.pixdim[1:4]]
    if not all(math.isfinite(value) and value > 0 for value in spacing[: len(header.size)]):
        raise CaseError(
            "spacing",
            expected="positive spacing in mm",
            found=f"{tuple(spacing)}",
            fix="Correct the header's pixdim; no reader can know the spacing",
        )
    if header.sform_code > 0 and header.qform_code > 0:
        distance = _corners_apart(header, header.sform, header.qform)
        if not distance <= _AFFINE_TOLERANCE_MM:
            raise _conflict(
                f"sform and qform that agree within {_AFFINE_TOLERANCE_MM} mm",
                f"a corner that moves by {distance:.3f} mm between them",
            )
    elif header.sform_code > 0:
        _check_sform(header)
    elif header.qform_code > 0 and not np.isfinite(header.qform).all():
        raise _conflict("a qform of finite numbers", "NaN or infinite numbers")


def _check_sform(header: NiftiHeader) -> None:
    if not np.isfinite(header.sform).all():
        raise _conflict("an sform of finite numbers", "NaN or infinite numbers")
    columns = header.sform[:, :3]
    lengths = np.linalg.norm(columns, axis=0)
    if lengths.min() <= 0:
        raise _conflict("an sform with three axes", "an axis of length 0")
    axes = columns / lengths
    cosine = float(np.abs(axes.T @ axes - np.eye(3)).max())
    if cosine > _RIGHT_ANGLE_TOLERANCE:
        raise CaseError(
            "shear",
            expected="axes at right angles",
            found=f"an sform with a cosine of {cosine:.4f} between two axes",
            fix="Resample the volume, and its label with it, onto axes at right angles",
        )
    scaled = np.hstack([axes * np.array(header.pixdim[1:4]), header.sform[:, 3:]])
    distance = _corners_apart(header, header.sform, scaled)
    if not distance <= _AFFINE_TOLERANCE_MM:
        raise _conflict(
            f"an sform whose scales are the spacing {tuple(round(float(each), 4) for each in header.pixdim[1:4])}",
            f"scales {tuple(round(float(each), 4) for each in lengths)}, which move a corner by {distance:.3f} mm",
        )


def _corners_apart(header: NiftiHeader, left: NDArray[np.float64], right: NDArray[np.float64]) -> float:
    """The largest distance in mm, along one axis, between a corner of the volume in two affines; NaN stays NaN."""
    x, y, z = (*header.size, 1, 1, 1)[:3]
    corner = np.array([[i, j, k, 1.0] for i in (0, x - 1) for j in (0, y - 1) for k in (0, z - 1)])
    return float(np.abs((left - right) @ corner.T).max()) * header.unit_mm


def _conflict(expected: str, found: str) -> CaseError:
    return CaseError(
        "affine_conflict",
        expected=expected,
        found=found,
        fix="Correct the header: which of the two is right only the owner knows",
    )
