"""Augmentation that stays true to the picture: the same map for image, maps and instances, and no false mirror.

No mirror image where left and right are concepts of the sample's dataset: a mirrored left lung would be called
left and lie where the right one is. A quarter turn only where a picture has no up and down. The grey values of
CT are measurements, cut by a window: `ct_jitter` 0 leaves them as they are. All chance comes from the generator.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# where a picture has no up and down, a quarter turn is as good a picture
_NO_ORIENTATION = ("microscopy", "histopathology", "dermoscopy")
_CONTROL_POINTS = 5  # of the elastic field, along an axis
_CHANCE = 0.25  # of each of noise, blur and low resolution, where they are on at all


@dataclass(frozen=True)
class Knobs:
    """How far each change goes at most; 0 turns it off."""

    flip: float = 0.0  # chance of a mirror image, left to right
    zoom: float = 0.0  # of the logarithm of the scale
    rotate_degrees: float = 0.0
    shift: float = 0.0  # half images
    elastic: float = 0.0  # standard deviation of the displacement, half images; mild below 0.03
    brightness: float = 0.0  # of the whole grey range
    contrast: float = 0.0  # of the factor about the mean
    gamma: float = 0.0  # of the logarithm of the exponent
    ct_jitter: float = 1.0  # factor on the three before, for CT
    noise: float = 0.0  # standard deviation, of the whole grey range
    blur: float = 0.0  # standard deviation of the Gaussian, pixels
    low_resolution: float = 0.0  # share of the pixels of an axis that may be lost


KNOBS = tuple(item.name for item in fields(Knobs))


def augment(
    image: Tensor,
    semantic: Tensor,
    instances: list[Tensor],
    knobs: Knobs,
    *,
    modality: str,
    sided: bool,
    draw: np.random.Generator,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """One draw of all changes.

    Args:
        image: (3, height, width), 0..1.
        semantic: (prompts, height, width), 0..1.
        instances: per prompt (instances, rows, columns), 0..1, at any resolution.
        knobs: how far each goes.
        modality: of the sample, as its row says.
        sided: whether left and right are among the concepts.
        draw: all chance.
    """
    zoom = math.exp(draw.uniform(-knobs.zoom, knobs.zoom))
    angle = math.radians(draw.uniform(-knobs.rotate_degrees, knobs.rotate_degrees))
    if not sided and any(word in modality.lower() for word in _NO_ORIENTATION):
        angle += math.pi / 2 * int(draw.integers(4))
    mirror = -1.0 if not sided and draw.random() < knobs.flip else 1.0
    shift = draw.uniform(-knobs.shift, knobs.shift, 2)
    cos, sin = math.cos(angle) / zoom, math.sin(angle) / zoom
    matrix = torch.tensor([[[cos * mirror, -sin, shift[0]], [sin * mirror, cos, shift[1]]]], dtype=torch.float32)

    field: Tensor | None = None

    def warp(stack: Tensor) -> Tensor:
        grid = F.affine_grid(matrix, [1, 1, *stack.shape[-2:]], align_corners=False)
        if field is not None:
            # the same smooth field, read at the centres of this stack's pixels
            moved = F.interpolate(field, stack.shape[-2:], mode="bicubic", align_corners=False)
            grid = grid + moved.permute(0, 2, 3, 1)
        return F.grid_sample(stack.unsqueeze(0), grid, align_corners=False).squeeze(0)

    jitter = knobs.ct_jitter if "CT" in modality.split() else 1.0
    gain = 1 + draw.uniform(-knobs.contrast * jitter, knobs.contrast * jitter)
    bias = draw.uniform(-knobs.brightness * jitter, knobs.brightness * jitter)
    if knobs.elastic:
        points = draw.standard_normal((1, 2, _CONTROL_POINTS, _CONTROL_POINTS)) * knobs.elastic
        field = torch.from_numpy(points).float()
    both = warp(torch.cat([image, semantic]))
    image, semantic = both[:3], both[3:]
    cells = torch.cat(instances) if instances else torch.zeros(0, 1, 1)
    if len(cells):
        instances = list(torch.split(warp(cells), [len(part) for part in instances]))
    middle = image.mean()
    image = ((image - middle) * gain + middle + bias).clamp(0, 1)
    if knobs.gamma * jitter:
        image = image ** math.exp(draw.uniform(-knobs.gamma * jitter, knobs.gamma * jitter))
    return _degraded(image, knobs, draw), semantic, instances


def _degraded(image: Tensor, knobs: Knobs, draw: np.random.Generator) -> Tensor:
    """What a worse scanner would have given: fewer pixels, blur, noise. Nothing moves."""
    size = image.shape[-2:]
    if knobs.low_resolution and draw.random() < _CHANCE:
        kept = 1 - draw.uniform(0, knobs.low_resolution)
        small = [max(2, round(length * kept)) for length in size]
        image = F.interpolate(image[None], small, mode="bilinear", antialias=True, align_corners=False)
        image = F.interpolate(image, size, mode="bilinear", align_corners=False)[0]
    if knobs.blur and draw.random() < _CHANCE:
        image = _blurred(image, draw.uniform(0.1, 1.0) * knobs.blur)
    if knobs.noise and draw.random() < _CHANCE:
        grain = torch.from_numpy(draw.standard_normal((1, *size))).float()  # grey: scanners have no colours
        image = image + grain * (draw.uniform(0, 1) * knobs.noise)
    return image.clamp(0, 1)


def _blurred(image: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of (channels, height, width), edges repeated."""
    reach = max(1, math.ceil(3 * sigma))
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    stack = F.pad(image[:, None], (reach, reach, reach, reach), mode="replicate")
    stack = F.conv2d(stack, kernel.view(1, 1, 1, -1))
    return F.conv2d(stack, kernel.view(1, 1, -1, 1))[:, 0]
