"""Box arithmetic, all in fp32 and normalised to 0..1 unless a name says pixels."""

from __future__ import annotations

import torch
from torch import Tensor


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """(…, 4) centre, width, height to corners."""
    cx, cy, w, h = boxes.unbind(-1)
    return torch.stack((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), dim=-1)


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """(…, 4) corners to centre, width, height."""
    x0, y0, x1, y1 = boxes.unbind(-1)
    return torch.stack(((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0), dim=-1)


def _areas(boxes: Tensor) -> Tensor:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def iou_and_giou(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and generalised IoU (Rezatofighi et al., arXiv:1902.09630) of broadcastable xyxy boxes."""
    low = torch.maximum(first[..., :2], second[..., :2])
    high = torch.minimum(first[..., 2:], second[..., 2:])
    intersection = (high - low).clamp(min=0).prod(dim=-1)
    union = _areas(first) + _areas(second) - intersection
    iou = intersection / union
    hull = (torch.maximum(first[..., 2:], second[..., 2:]) - torch.minimum(first[..., :2], second[..., :2])).clamp(
        min=0
    )
    hull_area = hull.prod(dim=-1)
    return iou, iou - (hull_area - union) / hull_area


def boxes_of_masks(masks: Tensor) -> Tensor:
    """Tight boxes (n, 4) xyxy, normalised, of masks (n, height, width); zeros for an empty mask."""
    count, height, width = masks.shape
    occupied = masks > 0.5
    rows, columns = occupied.any(dim=2), occupied.any(dim=1)
    boxes = torch.zeros(count, 4, dtype=torch.float32, device=masks.device)
    for axis, (line, extent) in enumerate(((columns, width), (rows, height))):
        index = torch.arange(extent, device=masks.device)
        first = torch.where(line, index, extent).amin(dim=1)
        last = torch.where(line, index, -1).amax(dim=1)
        found = last >= 0
        boxes[:, axis] = torch.where(found, first, 0) / extent
        boxes[:, axis + 2] = torch.where(found, last + 1, 0) / extent
    return boxes
