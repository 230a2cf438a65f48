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
from preprocessing.readers.detached import image_io
from preprocessing.readers.nifti_header import check_space, is_nifti_name, is_packed, read_nifti_header
from preprocessing.readers.whole import check_nifti_whole, unpacked

_RIGHT_ANGLE_TOLERANCE = 1e-3

sitk.ProcessObject.SetGlobalWarningDisplay(False)
# Cases run in parallel, each in its own process; threads for one small volume would only wait for each other.
sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)


def read_volume(path: Path, frame: int | None = None) -> sitk.Image:
    """Read a scalar 3D volume; of a 4D file the frame that is named, counted from 0, or the only one there is.

    A 3D file has no frames to choose from and is read whatever `frame` says: labels often have one for all.
    Raises CaseError: `unreadable`, `too_large`, `dimensions`, `spacing`, `affine_conflict`, `shear`.
    """
    if is_nifti_name(path):
        _judge(path)
    if is_nifti_name(path) and is_packed(path):
        with unpacked(path) as inside:
            return _read(path, inside, frame)
    return _read(path, None, frame)


def _judge(path: Path) -> None:
    """CaseError unless the header of a NIfTI file, as it is written, says what a volume may be."""
    with decoding(path, "a NIfTI header"):
        header = read_nifti_header(path)
    if math.prod(header.size[:3]) > MAX_VOXELS:
        raise too_large(math.prod(header.size[:3]), MAX_VOXELS, "voxels")
    check_space(header)
    if header.version == 2:
        raise CaseError(
            "unreadable",
            "a NIfTI-1 file",
            "a NIfTI-2 file, which SimpleITK does not read",
            fix="Save it as NIfTI-1",
        )


def _read(path: Path, inside: Path | None, frame: int | None) -> sitk.Image:
    """Read `path`, or in its place `inside`, which is known to be whole. Errors name `path`."""
    reader = _reader(path, inside)
    with decoding(path, "a volume"):
        reader.ReadImageInformation()
        size = [int(value) for value in reader.GetSize()]
        components = int(reader.GetNumberOfComponents())
    if math.prod(size[:3]) > MAX_VOXELS:
        raise too_large(math.prod(size[:3]), MAX_VOXELS, "voxels")
    check_spacing(reader.GetSpacing()[:3])
    _choose(reader, size, components, frame)
    if is_nifti_name(path) and inside is None:
        check_nifti_whole(path)
    with decoding(path, "a volume"):
        image = reader.Execute()
    check_spacing(image.GetSpacing())
    _check_right_angles(image)
    return image


def _reader(path: Path, inside: Path | None = None) -> sitk.ImageFileReader:
    """A reader of one format, told: else ITK asks every one that it knows, and some open what a file names."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(inside or path))
    reader.SetImageIO("NiftiImageIO" if is_nifti_name(path) else image_io(path))
    return reader


def read_grid(path: Path) -> NDArray[Any]:
    """The values of a file of two or more axes, slowest axis first, whatever they mean. Raises CaseError."""
    reader = _reader(path)
    with decoding(path, "a picture of the volume formats"):
        reader.ReadImageInformation()
        count = math.prod(int(value) for value in reader.GetSize()) * int(reader.GetNumberOfComponents())
    if count > MAX_VOXELS:
        raise too_large(count, MAX_VOXELS, "values")
    if is_nifti_name(path):
        check_nifti_whole(path)
    with decoding(path, "a picture of the volume formats"):
        array: NDArray[Any] = sitk.GetArrayFromImage(reader.Execute())
    return array


def _choose(reader: sitk.ImageFileReader, size: list[int], components: int, frame: int | None) -> None:
    """Let the reader take one frame of a 4D file; CaseError `dimensions` where no single volume is meant."""
    expected = "a 3D volume with one value a voxel"
    found = f"size {' x '.join(map(str, size))}, {components} value(s) a voxel"
    if len(size) not in (3, 4) or components != 1:
        raise CaseError("dimensions", expected=expected, found=found)
    if len(size) == 3:
        return
    wanted = 0 if frame is None and size[3] == 1 else frame
    if wanted is None:
        raise CaseError("dimensions", expected=expected, found=found, fix="Let the card's `frame` pick one of them")
    if not 0 <= wanted < size[3]:
        raise CaseError("dimensions", expected=f"a frame {wanted}, counted from 0, as the card says", found=found)
    reader.SetExtractSize([*size[:3], 0])
    reader.SetExtractIndex([0, 0, 0, wanted])


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


def _check_right_angles(image: sitk.Image) -> None:
    """CaseError `shear` for axes that NRRD or MetaImage give with another angle: ITK takes any."""
    axes = np.array(image.GetDirection()).reshape(3, 3)
    off = float(np.abs(axes.T @ axes - np.eye(3)).max())
    if not off <= _RIGHT_ANGLE_TOLERANCE:
        raise CaseError(
            "shear",
            expected="axes at right angles",
            found=f"directions that miss it by {off:.4f}",
            fix="Resample the volume, and its label with it, onto axes at right angles",
        )
