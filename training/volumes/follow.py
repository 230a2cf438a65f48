"""A volume segmented by following objects from slice to slice with SAM3's tracker.

The detector is asked on every slice first. The slice on which it is surest of itself starts a track: its own mask
there is given to the tracker, which follows it up and down to the ends of the volume. Where that leaves a slice of
whose answer the track covers less than half, the surest of those starts the next one, up to `most_tracks`. No truth is
read anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from training.decision import Decision
from training.decode import Pixels
from training.neighbours import stacks_of_volume
from training.predict import Segmenter, to_pixel_values
from training.volumes.consistency import Labels, Track, smoothed
from training.volumes.evidence import BATCH_SLICES, Evidence, Mask, on_slices
from training.volumes.tracker import VolumeTracker, add_mask, backbone_states

_CERTAIN = 1024.0  # logit of what is not there, as transformers' tracker has it
_COVERED = 0.5  # of a slice's answer: what is covered more needs no track of its own


@dataclass(frozen=True)
class Following:
    """Settings; chosen on validation volumes."""

    most_tracks: int = 1
    window: int = 1  # slices either way over which the detector's answers are averaged before a start is chosen
    gate: float = (
        0.0  # share of the presence threshold below which a tracked slice is emptied; 0: tracker alone decides
    )


def slice_features(
    segmenter: Segmenter, tracker: VolumeTracker, pixels: Sequence[Pixels], indices: Sequence[int] | None = None
) -> list[dict[str, list[Tensor]]]:
    """What the tracker keeps of each slice; once a volume, for all prompts and objects."""
    seen = stacks_of_volume(pixels, segmenter.neighbours, indices)
    found: list[dict[str, list[Tensor]]] = []
    with torch.inference_mode():
        for first in range(0, len(seen), BATCH_SLICES):
            batch = [to_pixel_values(each, segmenter.image_size) for each in seen[first : first + BATCH_SLICES]]
            found += tracker.features(backbone_states(segmenter.model, torch.stack(batch)))
    return found


def sureness(evidence: Evidence, mask: Mask) -> NDArray[np.float64]:
    """(slices,) presence times the mean probability inside the mask (slices, rows, columns); 0 where that is empty."""
    area = mask.sum(axis=(1, 2))
    inside = (1 / (1 + np.exp(-evidence.logits.astype(np.float64)))) * mask
    return np.where(area > 0, evidence.presence * inside.sum(axis=(1, 2)) / np.maximum(area, 1), 0.0)


def follow(
    track: Callable[[int, Mask], NDArray[np.float32]],
    evidence: Evidence,
    height: int,
    width: int,
    decision: Decision,
    settings: Following,
) -> tuple[Labels, list[Track], list[int]]:
    """Tracks of one prompt, as `consistent` gives them, and the slice that each track was started on.

    Args:
        track: follows an object from its slice and mask on: `track_object` of a tracker and a volume's features.
        evidence: the detector's answers.
        height: of a slice, pixels.
        width: of a slice, pixels.
        decision: thresholds of the detector.
        settings: how to follow.
    """
    smooth = smoothed(evidence, settings.window)
    claimed = _on_model_grid(smooth, decision)
    there = smooth.presence >= decision.presence_threshold
    claimed[~there] = False
    tracked = np.zeros_like(claimed)
    labels = np.zeros((len(claimed), height, width), dtype=np.int32)
    allowed = smooth.presence >= settings.gate * decision.presence_threshold
    tracks, starts = [], []
    for number in range(1, settings.most_tracks + 1):
        left = claimed & ~tracked
        left[left.sum(axis=(1, 2)) <= (1 - _COVERED) * claimed.sum(axis=(1, 2))] = False
        sure = sureness(smooth, left)
        start = int(np.argmax(sure))
        if sure[start] == 0:
            break
        logits = track(start, left[start]).copy()
        logits[~allowed] = -_CERTAIN
        tracked |= _resized(logits, *claimed.shape[1:]) > 0
        found = on_slices(logits, height, width, 0.5)
        labels[found & (labels == 0)] = number
        on = np.flatnonzero((labels == number).any(axis=(1, 2)))
        if on.size:
            voxels = int((labels == number).sum())
            tracks.append(Track(number, int(on[0]), int(on[-1]), float(smooth.presence[on].mean()), voxels))
            starts.append(start)
    return labels, tracks, starts


def track_object(
    tracker: VolumeTracker, features: list[dict[str, list[Tensor]]], start: int, mask: Mask
) -> NDArray[np.float32]:
    """Logits (slices, rows, columns) of one object, given by its mask (rows, columns) on slice `start`.

    The start's own logits are its mask's; slices on which the tracker sees no object are far below 0.
    """
    model = tracker.tracker_model
    session = tracker.session(features)
    add_mask(session, start, torch.from_numpy(mask))
    with torch.inference_mode():
        first = model(session, frame_idx=start).pred_masks
        found = np.full((len(features), *first.shape[-2:]), -_CERTAIN, dtype=np.float32)
        found[start] = first[0, 0].float().numpy()
        for reverse in (False, True):
            for out in model.propagate_in_video_iterator(session, start_frame_idx=start, reverse=reverse):
                if out.frame_idx != start:
                    found[out.frame_idx] = out.pred_masks[0, 0].float().numpy()
    return found


def _on_model_grid(evidence: Evidence, decision: Decision) -> Mask:
    """The maps cut at their own resolution: what the tracker is given is resized to the model's size by itself."""
    return np.asarray(1 / (1 + np.exp(-evidence.logits.astype(np.float64))) > decision.mask_threshold)


def _resized(logits: NDArray[np.float32], rows: int, columns: int) -> NDArray[np.float32]:
    stack = torch.from_numpy(logits)[:, None]
    resized = F.interpolate(stack, (rows, columns), mode="bilinear", align_corners=False)
    result: NDArray[np.float32] = resized[:, 0].numpy()
    return result
