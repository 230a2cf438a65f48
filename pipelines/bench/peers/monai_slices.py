"""MONAI's dictionary transforms, and a .npy of image and label for every slice."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    LoadImaged,
    Orientationd,
    ScaleIntensityRangePercentilesd,
)
from served import serve

BOTH = ["image", "label"]
VOLUME = Compose(
    [
        LoadImaged(keys=BOTH),
        EnsureChannelFirstd(keys=BOTH),
        Orientationd(keys=BOTH, axcodes="RAS"),
        ScaleIntensityRangePercentilesd(keys="image", lower=0.5, upper=99.5, b_min=0, b_max=255, clip=True),
    ]
)
PICTURE = Compose([LoadImaged(keys="image"), EnsureChannelFirstd(keys="image")])
MASK = Compose([LoadImaged(keys="label"), EnsureChannelFirstd(keys="label")])


def prepare() -> None:
    """One thread a process: there is a process for every core."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")


def volume(out: Path, case: dict[str, Any]) -> int:
    """Slices across the third axis."""
    read = VOLUME({"image": case["image"], "label": case["labels"][0]})
    image = read["image"][0].numpy().astype(np.uint8)
    label = read["label"][0].numpy().astype(np.uint8)
    for index in range(image.shape[2]):
        np.save(out / f"{case['id']}_{index:04d}.npy", image[:, :, index])
        np.save(out / f"{case['id']}_{index:04d}_label.npy", label[:, :, index])
    return int(image.shape[2])


def picture(out: Path, case: dict[str, Any]) -> int:
    """A picture and the union of its masks."""
    image = PICTURE({"image": case["image"]})["image"].numpy().astype(np.uint8)
    masks = [MASK({"label": file})["label"].numpy().max(axis=0) > 127 for file in case["labels"]]
    np.save(out / f"{case['id']}.npy", image)
    np.save(out / f"{case['id']}_label.npy", np.any(masks, axis=0).astype(np.uint8))
    return 1


if __name__ == "__main__":
    serve({"volume": volume, "picture": picture}[sys.argv[1]], prepare)
