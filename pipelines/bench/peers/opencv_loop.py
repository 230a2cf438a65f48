"""The loop of most preparation scripts: SimpleITK or OpenCV reads, OpenCV writes a PNG of image and mask a sample.

`--resize N` is its other usual form: everything to N × N pixels.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import SimpleITK as sitk
from served import serve


def prepare() -> None:
    """One thread a process: there is a process for every core."""
    cv2.setNumThreads(1)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    sitk.ProcessObject.SetGlobalWarningDisplay(False)


def volume(out: Path, case: dict[str, Any], size: int) -> int:
    """Slices of a volume, windowed by percentiles of its foreground, and of its label."""
    voxels = sitk.GetArrayFromImage(sitk.DICOMOrient(sitk.ReadImage(case["image"]), "LPS"))
    label = sitk.GetArrayFromImage(sitk.DICOMOrient(sitk.ReadImage(case["labels"][0]), "LPS")).astype(np.uint8)
    voxels = voxels.astype(np.float32)
    low, high = np.percentile(voxels[voxels > voxels.min()], (0.5, 99.5))
    pixels = np.uint8(np.clip((voxels - low) / (high - low), 0, 1) * 255)
    for index, (image, mask) in enumerate(zip(pixels, label, strict=True)):
        _write(out / f"{case['id']}_{index:04d}", image, mask, size)
    return len(pixels)


def picture(out: Path, case: dict[str, Any], size: int) -> int:
    """A picture and the union of its masks."""
    image = cv2.imread(case["image"], cv2.IMREAD_COLOR)
    mask = np.zeros(image.shape[:2], dtype=np.uint8)
    for file in case["labels"]:
        drawn = cv2.imread(file, cv2.IMREAD_UNCHANGED)
        mask |= (drawn if drawn.ndim == 2 else drawn.max(axis=2)) > 127
    _write(out / case["id"], image, mask, size)
    return 1


def _write(name: Path, image: np.ndarray, mask: np.ndarray, size: int) -> None:
    if size:
        image = cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR)
        mask = cv2.resize(mask, (size, size), interpolation=cv2.INTER_NEAREST)
    cv2.imwrite(f"{name}.png", image)
    cv2.imwrite(f"{name}_mask.png", mask)


def main() -> None:
    """Serve volumes or pictures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["volume", "picture"])
    parser.add_argument("--resize", type=int, default=0)
    options = parser.parse_args()
    convert = {"volume": volume, "picture": picture}[options.kind]
    serve(partial(convert, size=options.resize), prepare)


if __name__ == "__main__":
    main()
