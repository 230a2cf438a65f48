"""What a model says of each slice of a volume by itself, and the plain way of making a mask of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from training.decision import Decision
from training.decode import Pixels
from training.neighbours import stacks_of_volume
from training.predict import Segmenter, concept_scores, presence_of

Values = NDArray[np.float32]
Mask = NDArray[np.bool_]

BATCH_SLICES = 8


@dataclass
class Evidence:
    """Of one prompt, for every slice of a volume."""

    logits: Values  # (slices, rows, columns) of the semantic map, on the model's grid
    presence: Values  # (slices,) probability that the concept is on the slice, calibrated
    score: Values  # (slices,) SAM3's confidence


def gather(
    segmenter: Segmenter, pixels: Sequence[Pixels], prompts: list[str], indices: Sequence[int] | None = None
) -> list[Evidence]:
    """Ask every slice for every prompt; vision runs once a slice.

    Args:
        segmenter: the model; its `neighbours` say whether a slice is seen with those beside it.
        pixels: the slices in their order, each (height, width[, 1 or 3]) uint8.
        prompts: texts.
        indices: slice indices, where slices are left out.
    """
    seen = stacks_of_volume(pixels, segmenter.neighbours, indices)
    parts: list[tuple[Values, Values, Values]] = []
    for first in range(0, len(seen), BATCH_SLICES):
        batch = seen[first : first + BATCH_SLICES]
        count = len(batch)
        said = segmenter.decode(
            segmenter.encode(batch),
            [prompt for prompt in prompts for _ in range(count)],
            [number for _ in prompts for number in range(count)],
        )
        maps = said.semantic.float().numpy()
        parts.append(
            (
                maps.reshape(len(prompts), count, *maps.shape[1:]),
                presence_of(said, segmenter.decision).numpy().reshape(len(prompts), count),
                concept_scores(said, segmenter.decision).numpy().reshape(len(prompts), count),
            )
        )
    logits, presence, score = (np.concatenate([part[kind] for part in parts], axis=1) for kind in range(3))
    return [Evidence(*each) for each in zip(logits, presence, score, strict=True)]


def on_slices(logits: Values, height: int, width: int, threshold: float) -> Mask:
    """Maps (slices, rows, columns) cut at a probability on the slices' own (height, width) grid, bilinear."""
    resized = F.interpolate(torch.from_numpy(logits)[:, None], (height, width), mode="bilinear", align_corners=False)
    mask: Mask = (resized[:, 0].sigmoid() > threshold).numpy()
    return mask


def plain(evidence: Evidence, height: int, width: int, decision: Decision) -> Mask:
    """Slice by slice, as a single picture is served: (slices, height, width)."""
    mask = on_slices(evidence.logits, height, width, decision.mask_threshold)
    mask[evidence.presence < decision.presence_threshold] = False
    return mask
