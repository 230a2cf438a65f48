"""Segment a whole volume for text prompts, by the way that the model folder names."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.errors import UsageError
from training.predict import Segmenter
from training.volumes.consistency import Consistency, consistent
from training.volumes.evidence import gather


def segment_volume(
    segmenter: Segmenter, volume_u8_zyx: NDArray[np.uint8], prompts: list[str], settings: Consistency | None = None
) -> list[dict[str, Any]]:
    """Segment a volume slice by slice, made consistent along its first axis.

    Args:
        segmenter: the model; one that was trained on neighbouring slices sees them.
        volume_u8_zyx: (slices, height, width) or (slices, height, width, 1 or 3) uint8, at least one slice.
        prompts: concept names or synonyms.
        settings: of the consistency; its defaults where not given.

    Returns:
        One dict a prompt: `prompt`, `score` (0..1, of the best slice), `mask` bool (slices, height, width), `tracks`,
        a list of `{"number", "first", "last" (slices, inclusive), "score", "mask" bool (slices, height, width)}`.

    Raises:
        UsageError: an array of another type or shape.
    """
    volume = np.asarray(volume_u8_zyx)
    if volume.dtype != np.uint8 or volume.ndim not in (3, 4) or not len(volume):
        found = f"{volume.dtype} {volume.shape}"
        msg = (
            f"volume: expected uint8 of shape (slices, height, width) or (slices, height, width, 1 or 3), found {found}"
        )
        raise UsageError(msg)
    if not prompts:
        return []
    height, width = volume.shape[1:3]
    results = []
    for prompt, evidence in zip(prompts, gather(segmenter, list(volume), prompts), strict=True):
        labels, tracks = consistent(evidence, height, width, segmenter.decision, settings or Consistency())
        results.append(
            {
                "prompt": prompt,
                "score": float(evidence.score.max()),
                "mask": labels > 0,
                "tracks": [
                    {
                        "number": track.number,
                        "first": track.first,
                        "last": track.last,
                        "score": track.presence,
                        "mask": labels == track.number,
                    }
                    for track in tracks
                ],
            }
        )
    return results
