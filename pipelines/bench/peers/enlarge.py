"""Larger volumes from small real ones: linear interpolation in plane, labels by nearest neighbour, int16 as in clinics.

Reads jobs `{"image", "label", "factor", "classes", "out_image", "out_label"}`, one a line, from standard input.
"""

from __future__ import annotations

import json
import sys

import numpy as np
import SimpleITK as sitk


def main() -> None:
    """Write every volume of the jobs."""
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    for line in sys.stdin:
        job = json.loads(line)
        image, label = sitk.ReadImage(job["image"]), sitk.ReadImage(job["label"])
        voxels = sitk.GetArrayFromImage(image).astype(np.float64)
        if image.GetPixelID() in (sitk.sitkFloat32, sitk.sitkFloat64):  # z-scores would round to a handful of values
            voxels = (voxels - voxels.min()) * (2000.0 / (voxels.max() - voxels.min()))
        whole = sitk.GetImageFromArray(np.rint(voxels).astype(np.int16))
        whole.CopyInformation(image)
        codes = sitk.GetArrayFromImage(label).astype(np.int64)
        folded = sitk.GetImageFromArray(np.where(codes > 0, (codes - 1) % job["classes"] + 1, 0).astype(np.uint8))
        folded.CopyInformation(image)
        grid = _finer(image, job["factor"])
        sitk.WriteImage(sitk.Resample(whole, grid, sitk.Transform(), sitk.sitkLinear), job["out_image"])
        sitk.WriteImage(sitk.Resample(folded, grid, sitk.Transform(), sitk.sitkNearestNeighbor), job["out_label"])


def _finer(image: sitk.Image, factor: int) -> sitk.Image:
    """An empty volume over the same place with `factor` times the voxels along x and y."""
    x, y, z = image.GetSize()
    grid = sitk.Image(x * factor, y * factor, z, sitk.sitkUInt8)
    grid.SetOrigin(image.GetOrigin())
    grid.SetDirection(image.GetDirection())
    width, height, depth = image.GetSpacing()
    grid.SetSpacing((width / factor, height / factor, depth))
    return grid


if __name__ == "__main__":
    main()
