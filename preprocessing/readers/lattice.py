"""Voxel indices of a volume: from the world to (x, y, z) indices, on sheared grids too."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Lattice:
    """The affine of a volume: world = origin + columns @ index, LPS millimetres; `size` is (x, y, z)."""

    size: tuple[int, int, int]
    origin: Vector
    columns: Vector

    @classmethod
    def of(cls, image: sitk.Image) -> Lattice:
        """The lattice of a volume."""
        x, y, z = image.GetSize()
        columns = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
        return cls((x, y, z), np.array(image.GetOrigin()), columns)

    def index_of(self, points: Vector) -> Vector:
        """Fractional indices (…, x y z) of points (…, 3) in the world."""
        return np.asarray((points - self.origin) @ np.linalg.inv(self.columns).T)

    def step_of(self, vector: Vector) -> Vector:
        """A displacement in the world, in voxels along x, y, z."""
        return np.asarray(np.linalg.inv(self.columns) @ vector)
