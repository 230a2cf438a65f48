"""Volumes to NIfTI: equal voxels on equal grids give equal bytes."""

from __future__ import annotations

import gzip
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray


def write_nifti(
    array_zyx: NDArray[Any], case_row: Mapping[str, Any], grid: Literal["original", "harmonized"], path: Path
) -> None:
    """Write a volume (z, y, x) as `.nii.gz` on the original or the harmonized grid of its row of `cases.parquet`."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(array_zyx))
    image.SetSpacing([float(value) for value in case_row[f"{grid}_spacing_mm_xyz"]])
    image.SetOrigin([float(value) for value in case_row[f"{grid}_origin_mm_xyz"]])
    image.SetDirection([float(value) for value in case_row[f"{grid}_direction"]])
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".nifti-") as spare:
        plain = Path(spare) / "volume.nii"
        sitk.WriteImage(image, str(plain))
        # compressed by hand: gzip's header has a time of day
        path.write_bytes(gzip.compress(plain.read_bytes(), compresslevel=4, mtime=0))
