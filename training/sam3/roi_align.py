"""RoIAlign without torchvision, which has no build for the CPU torch this project locks.

Bilinear sampling is separable, and so is the mean over a regular grid of samples: pooling is two
small matrix products per box, with shapes that do not depend on the boxes (compile-clean).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def roi_align(features: Tensor, boxes_xyxy: Tensor, size: int) -> Tensor:
    """Pool each box to a grid of `size` × `size` (He et al., Mask R-CNN, arXiv:1703.06870).

    Args:
        features: (batch, channels, height, width).
        boxes_xyxy: (batch, boxes, 4) in feature pixels.
        size: output height and width.

    Returns:
        (batch, boxes, channels, size, size). The convention is torchvision's default: not aligned,
        boxes at least one pixel wide, ceil(extent / size) samples a bin along each axis.
    """
    height, width = features.shape[-2:]
    x0, y0, x1, y1 = boxes_xyxy.unbind(-1)
    rows = _pooling_matrix(y0, y1, size, height)
    columns = _pooling_matrix(x0, x1, size, width)
    pooled = torch.einsum("bnph,bchw->bncpw", rows, features)
    return torch.einsum("bncpw,bnqw->bncpq", pooled, columns)


def _pooling_matrix(start: Tensor, stop: Tensor, size: int, extent: int) -> Tensor:
    """Weights (batch, boxes, size, extent) that average the samples of each bin along one axis."""
    length = (stop - start).clamp(min=1.0)
    samples = torch.ceil(length / size)
    most = math.ceil(extent / size) + 1  # boxes may stick out a little
    samples = samples.clamp(max=most)
    bins = torch.arange(size, device=start.device, dtype=start.dtype)
    steps = torch.arange(most, device=start.device, dtype=start.dtype)
    # (batch, boxes, size, most): sample positions in feature pixels
    within = (steps + 0.5) / samples.unsqueeze(-1)
    position = start[..., None, None] + (length / size)[..., None, None] * (bins[:, None] + within.unsqueeze(-2))
    used = (steps < samples.unsqueeze(-1)).unsqueeze(-2)
    used = used & (position >= -1.0) & (position <= extent)
    position = position.clamp(0, extent - 1)
    pixels = torch.arange(extent, device=start.device, dtype=start.dtype)
    hat = (1 - (position.unsqueeze(-1) - pixels).abs()).clamp(min=0)
    return (hat * used.unsqueeze(-1)).sum(dim=-2) / samples[..., None, None]
