"""MONAI's dictionary transforms, and a .npy of image and label for every slice or picture.

`--resize N` adds its `Resized`: every slice to N × N pixels, the size of a network's input.
"""

from __future__ import annotations

import argparse
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    LoadImaged,
    Orientationd,
    Resized,
    ScaleIntensityRangePercentilesd,
)
from served import serve


def prepare() -> None:
    """One thread a process: there is a process for every core."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")


def loader(keys: list[str], size: int, *, depth: bool) -> Compose:
    """Read, orient and scale volumes, or read pictures; then resize where `size` is not 0."""
    steps: list[Any] = [LoadImaged(keys=keys), EnsureChannelFirstd(keys=keys)]
    if depth:
        steps.append(Orientationd(keys=keys, axcodes="RAS"))
        steps.append(
            ScaleIntensityRangePercentilesd(keys="image", lower=0.5, upper=99.5, b_min=0, b_max=255, clip=True)
        )
    if size:
        shape = (size, size, -1) if depth else (size, size)
        modes = [{"image": "trilinear" if depth else "bilinear", "label": "nearest"}[key] for key in keys]
        steps.append(Resized(keys=keys, spatial_size=shape, mode=modes))
    return Compose(steps)


def volume(out: Path, case: dict[str, Any], transform: Compose) -> int:
    """Slices across the third axis."""
    read = transform({"image": case["image"], "label": case["labels"][0]})
    image = read["image"][0].numpy().astype(np.uint8)
    label = read["label"][0].numpy().astype(np.uint8)
    for index in range(image.shape[2]):
        np.save(out / f"{case['id']}_{index:04d}.npy", image[:, :, index])
        np.save(out / f"{case['id']}_{index:04d}_label.npy", label[:, :, index])
    return int(image.shape[2])


def picture(out: Path, case: dict[str, Any], transform: tuple[Compose, Compose]) -> int:
    """A picture and the union of its masks."""
    image = transform[0]({"image": case["image"]})["image"].numpy().astype(np.uint8)
    masks = [transform[1]({"label": file})["label"].numpy().max(axis=0) > 127 for file in case["labels"]]
    np.save(out / f"{case['id']}.npy", image)
    np.save(out / f"{case['id']}_label.npy", np.any(masks, axis=0).astype(np.uint8))
    return 1


def main() -> None:
    """Serve volumes or pictures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["volume", "picture"])
    parser.add_argument("--resize", type=int, default=0)
    options = parser.parse_args()
    if options.kind == "volume":
        serve(partial(volume, transform=loader(["image", "label"], options.resize, depth=True)), prepare)
    else:
        both = tuple(loader([key], options.resize, depth=False) for key in ("image", "label"))
        serve(partial(picture, transform=both), prepare)


if __name__ == "__main__":
    main()
