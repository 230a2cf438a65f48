"""From a picture to SAM3's input exactly as the official processor makes it, without torchvision."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor


def official_resized(image_u8_hwc: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """(height, width, 3) uint8 to (size, size, 3), stretched to a square.

    The resize is torch's own on uint8 (bilinear, antialiased), which is what torchvision calls. Pillow's, which
    recipes that start from nothing use, rounds between its two passes: it differs by one grey level in up to a
    quarter of the pixels.
    """
    picture = torch.from_numpy(np.array(image_u8_hwc, order="C")).permute(2, 0, 1).unsqueeze(0)
    stretched = F.interpolate(picture, (size, size), mode="bilinear", antialias=True, align_corners=False)
    result: NDArray[np.uint8] = np.ascontiguousarray(stretched[0].permute(1, 2, 0).numpy())
    return result


def official_pixel_values(image_u8_hwc: NDArray[np.uint8], size: int) -> Tensor:
    """(height, width, 3) uint8 to (3, size, size) float32 in -1..1, stretched to a square (`official_resized`)."""
    return (torch.from_numpy(official_resized(image_u8_hwc, size)).permute(2, 0, 1).float() / 255 - 0.5) / 0.5
