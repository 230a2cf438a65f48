"""Volumes in NIfTI, NRRD and MetaImage, through SimpleITK, in LPS world coordinates and millimetres.

The NIfTI library below ITK reads NaN and infinite voxels as 0; in the other formats they arrive as they
are and the intensity rules refuse them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from infra.errors import CaseError
from preprocessing.readers import MAX_VOXELS, decoding, too_large
from preprocessing.readers.whole import check_nifti_whole, unpacked

# Two affines of one NIfTI may differ by float rounding; a corner of the volume may move this far.
_AFFINE_TOLERANCE_MM = 0.1

sitk.ProcessObject.SetGlobalWarningDisplay(False)
# Cases run in parallel, each in its own process; threads for one small volume would only wait for each other.
sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)


def read_volume(path: Path) -> sitk.Image:
    """Read a scalar 3D volume; a 4D file with one frame is that frame.

    Raises CaseError: `unreadable`, `too_large`, `dimensions`, `spacing`, `affine_conflict`.
    """
    if path.name.lower().endswith(".nii.gz"):
        with unpacked(path) as inside:
            if inside is not None:
                return _read(path, inside)
    return _read(path, None)


def _read(path: Path, inside: Path | None) -> sitk.Image:
    """Read `path`, or in its place `inside`, which is known to be whole. Errors name `path`."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(inside or path))
    is_nifti = path.name.lower().endswith((".nii", ".nii.gz"))
    if is_nifti:
        reader.SetImageIO("NiftiImageIO")  # else ITK asks every format that it knows
    with decoding(path, "a volume"):
        reader.ReadImageInformation()
        size = [int(value) for value in reader.GetSize()]
        components = int(reader.GetNumberOfComponents())
    if math.prod(size) > MAX_VOXELS:
        raise too_large(math.prod(size), MAX_VOXELS, "voxels")
    if len(size) not in (3, 4) or (len(size) == 4 and size[3] != 1) or components != 1:
        raise CaseError(
            "dimensions",
            expected="a 3D volume with one value a voxel",
            found=f"size {' x '.join(map(str, size))}, {components} value(s) a voxel",
        )
    if is_nifti and inside is None:
        check_nifti_whole(path)
    with decoding(path, "a volume's affines"):
        _check_affines(reader, size)
    with decoding(path, "a volume"):
        image = reader.Execute()
        if len(size) == 4:
            image = image[:, :, :, 0]
    check_spacing(image.GetSpacing())
    return image


def array_of(image: sitk.Image) -> NDArray[Any]:
    """A copy of the voxels, axes (z, y, x).

    A view would point into memory that dies with the image: `GetArrayViewFromImage(ReadImage(p))` is a
    use-after-free.
    """
    array: NDArray[Any] = sitk.GetArrayFromImage(image)
    return array


def check_spacing(spacing: Sequence[float]) -> None:
    """CaseError `spacing` unless every spacing is a positive finite length in mm."""
    if not all(math.isfinite(value) and value > 0 for value in spacing):
        raise CaseError("spacing", expected="positive spacing in mm", found=f"{tuple(spacing)}")


def _check_affines(reader: sitk.ImageFileReader, size: list[int]) -> None:
    """CaseError `affine_conflict` where a NIfTI's sform and qform are both set and disagree."""
    keys = set(reader.GetMetaDataKeys())
    if not {"qform_code", "sform_code", "srow_x", "quatern_b"} <= keys:
        return
    value = {key: reader.GetMetaData(key) for key in keys}
    if int(value["qform_code"]) <= 0 or int(value["sform_code"]) <= 0:
        return
    sform = np.array([[float(part) for part in value[f"srow_{axis}"].split()] for axis in "xyz"])
    qform = _qform(value)
    corner = np.array([[x, y, z, 1.0] for x in (0, size[0] - 1) for y in (0, size[1] - 1) for z in (0, size[2] - 1)])
    distance = float(np.abs((sform - qform) @ corner.T).max())
    if not math.isfinite(distance) or distance > _AFFINE_TOLERANCE_MM:
        raise CaseError(
            "affine_conflict",
            expected=f"sform and qform that agree within {_AFFINE_TOLERANCE_MM} mm",
            found=f"a corner that moves by {distance:.3f} mm between them",
            fix="Correct the header: which of the two is right only the owner knows",
        )


def _qform(value: dict[str, str]) -> NDArray[np.float64]:
    """The 3 × 4 affine of the quaternion in a NIfTI-1 header (nifti1.h, method 2)."""
    b, c, d = (float(value[f"quatern_{name}"]) for name in "bcd")
    a = math.sqrt(max(0.0, 1.0 - (b * b + c * c + d * d)))
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    pixdim = [float(value[f"pixdim[{index}]"]) for index in range(4)]
    handed = -1.0 if pixdim[0] < 0 else 1.0
    offset = [[float(value[f"qoffset_{axis}"])] for axis in "xyz"]
    return np.hstack([rotation * np.array([pixdim[1], pixdim[2], pixdim[3] * handed]), np.array(offset)])
