"""A picture or volume that a served model was given, and the way back onto its own grid and into files."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.errors import UsageError


@dataclass(frozen=True)
class Scene:
    """What was read. `axes` is "yx" for a picture and "zyx" for a volume.

    `pixels` are uint8: (height, width[, 3]) of a picture; of a volume (slices, rows, columns[, 3]) across `axis` of
    the harmonized grid. `shape` is the original grid's, (height, width) or (z, y, x) as the file stores it, z being
    the slowest axis. `intensity` is the rule with its numbers, `case_row` the geometry columns of `CASES_SCHEMA`,
    `files` the DICOM series that was read.
    """

    pixels: NDArray[np.uint8]
    axes: str
    shape: tuple[int, ...]
    intensity: dict[str, Any]
    axis: str = ""
    case_row: Mapping[str, Any] | None = None
    files: tuple[Path, ...] = ()

    @property
    def geometry(self) -> dict[str, Any] | None:
        """Spacing (mm), origin (mm, LPS), direction cosines of the original grid in (x, y, z); None where unknown."""
        row = self.case_row
        if row is None or row["original_spacing_mm_xyz"] is None:
            return None
        names = ("spacing_mm_xyz", "origin_mm_xyz", "direction", "orientation")
        return {name: row[f"original_{name}"] for name in names}

    def back(self, found: NDArray[Any]) -> NDArray[Any]:
        """A mask or labels of the grid of `pixels` on the original grid, of shape `shape`."""
        if self.case_row is None:
            return found
        from preprocessing.harmonize.geometry import to_original_grid

        return to_original_grid(np.moveaxis(found, 0, "zyx".index(self.axis)), self.case_row)

    def encoded(self, mask: NDArray[np.bool_]) -> bytes:
        """A mask of the original grid as a file: PNG of 0 and 255, or NIfTI (.nii.gz) with the original's affine."""
        with tempfile.TemporaryDirectory() as spare:
            path = Path(spare) / f"mask{self.ending}"
            self.write(mask, path)
            return path.read_bytes()

    @property
    def ending(self) -> str:
        """How files of masks are called: .png for pictures, .nii.gz for volumes."""
        return ".png" if self.axes == "yx" else ".nii.gz"

    def write(self, mask: NDArray[np.bool_], path: Path) -> None:
        """`encoded` to a file."""
        if self.axes == "yx":
            from PIL import Image

            Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).save(path, format="PNG")
            return
        from preprocessing.nifti_writer import write_nifti

        row = self.case_row if self.geometry is not None else _UNIT_GRID
        assert row is not None
        write_nifti(mask.astype(np.uint8), row, "original", path)

    def write_dicom_seg(self, masks: Mapping[str, NDArray[np.bool_]], name: str, version: str, path: Path) -> None:
        """Masks of the original grid as one DICOM-SEG that refers to the series that was read.

        UsageError where that was no DICOM series; DataError where no SEG can refer to it (a tilted one).
        """
        if not self.files or self.case_row is None:
            msg = f"{path.name}: a DICOM-SEG needs a DICOM series as input, found another kind"
            raise UsageError(msg)
        from preprocessing.dicom_seg_writer import Algorithm, write_dicom_seg

        write_dicom_seg(masks, list(self.files), self.case_row, Algorithm(name, version), path)


_UNIT_GRID = {
    "original_spacing_mm_xyz": [1.0, 1.0, 1.0],
    "original_origin_mm_xyz": [0.0, 0.0, 0.0],
    "original_direction": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
}
