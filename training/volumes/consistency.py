"""Slice-wise answers made consistent along a volume.

1. Presence and maps are averaged, as logits, with those of the slices beside them (triangular weights over `window`
   slices either way, the volume's edge repeated): what one slice alone says for or against weighs less.
2. The averaged maps are cut, slices with too little averaged presence are emptied, and each slice falls into regions
   (8-connected).
3. Regions of slices that follow one another are linked where they share `overlap` of the smaller one's area; what is
   linked is a track, an object in three dimensions with one number on all its slices.
4. A track that is both short (fewer than `shortest` slices) and weak (mean presence below `strong`) is dropped.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.decision import Decision
from training.volumes.evidence import Evidence, Mask, Values, on_slices

Labels = NDArray[np.int32]

_TINY = 1e-6


@dataclass(frozen=True)
class Consistency:
    """Settings; chosen on validation volumes."""

    window: int = 1  # slices either way; 0: none is averaged
    overlap: float = 0.25  # of the smaller region's area
    shortest: int = 3  # slices
    strong: float = 0.8  # mean averaged presence


@dataclass(frozen=True)
class Track:
    """An object followed through a volume."""

    number: int  # its label, from 1 on
    first: int  # slice
    last: int  # slice, inclusive
    presence: float  # mean over its slices
    voxels: int


def smoothed(evidence: Evidence, window: int) -> Evidence:
    """Logits of maps and presence averaged over `window` slices either way; the score stays."""
    if window < 1:
        return evidence
    bounded = np.clip(evidence.presence.astype(np.float64), _TINY, 1 - _TINY)
    presence = _averaged(np.log(bounded / (1 - bounded)), window)
    logits = _averaged(evidence.logits.astype(np.float64), window)
    return Evidence(logits.astype(np.float32), (1 / (1 + np.exp(-presence))).astype(np.float32), evidence.score)


def consistent(
    evidence: Evidence, height: int, width: int, decision: Decision, settings: Consistency
) -> tuple[Labels, list[Track]]:
    """Tracks of one prompt: labels (slices, height, width), 0 for none, and what is known of each, by its number."""
    smooth = smoothed(evidence, settings.window)
    mask = on_slices(smooth.logits, height, width, decision.mask_threshold)
    mask[smooth.presence < decision.presence_threshold] = False
    labels = linked(mask, settings.overlap)
    kept = []
    for track in tracks_of(labels, smooth.presence):
        if track.last - track.first + 1 < settings.shortest and track.presence < settings.strong:
            labels[labels == track.number] = 0
        else:
            kept.append(track)
    return labels, kept


def linked(mask: Mask, overlap: float) -> Labels:
    """Labels (slices, height, width) from 1 on, by first slice, of objects linked along the slices of a mask."""
    labels = np.zeros(mask.shape, dtype=np.int32)
    parent = [0]
    for number, plane in enumerate(mask):
        found, count = regions(plane)
        labels[number] = np.where(found > 0, found + len(parent) - 1, 0)
        parent.extend(range(len(parent), len(parent) + count))
    area = np.bincount(labels.ravel(), minlength=len(parent))
    for below, above in itertools.pairwise(labels):
        both = (below > 0) & (above > 0)
        pairs, shared = np.unique(np.stack([below[both], above[both]]), axis=1, return_counts=True)
        for (first, second), count in zip(pairs.T.tolist(), shared.tolist(), strict=True):
            if count >= overlap * min(area[first], area[second]):
                _join(parent, first, second)
    numbers = np.zeros(len(parent), dtype=np.int32)
    names: dict[int, int] = {}
    for region in range(1, len(parent)):
        numbers[region] = names.setdefault(_root(parent, region), len(names) + 1)
    named: Labels = numbers[labels]
    return named


def regions(mask: Mask) -> tuple[Labels, int]:
    """8-connected regions of (height, width): labels from 1 on in the order of their first row, and their number."""
    padded = np.pad(mask.astype(np.int8), ((0, 0), (1, 1)))
    change = np.diff(padded, axis=1)
    rows, begins = np.nonzero(change == 1)
    ends = np.nonzero(change == -1)[1]  # exclusive; runs come in the same order
    parent = list(range(len(rows)))
    first = np.searchsorted(rows, np.arange(mask.shape[0] + 1))
    for row in range(1, mask.shape[0]):
        above, here = int(first[row - 1]), int(first[row])
        while above < first[row] and here < first[row + 1]:
            if begins[above] <= ends[here] and begins[here] <= ends[above]:  # diagonal neighbours touch
                _join(parent, above, here)
            if ends[above] < ends[here]:
                above += 1
            else:
                here += 1
    labels = np.zeros(mask.shape, dtype=np.int32)
    names: dict[int, int] = {}
    for run, (row, begin, end) in enumerate(zip(rows.tolist(), begins.tolist(), ends.tolist(), strict=True)):
        labels[row, begin:end] = names.setdefault(_root(parent, run), len(names) + 1)
    return labels, len(names)


def tracks_of(labels: Labels, presence: Values) -> list[Track]:
    """What is known of each label of (slices, height, width); `presence` is per slice."""
    found = []
    per_slice = [np.bincount(plane.ravel(), minlength=int(labels.max(initial=0)) + 1) for plane in labels]
    voxels = np.stack(per_slice) if per_slice else np.zeros((0, 1), dtype=np.int64)
    for number in range(1, voxels.shape[1]):
        on = np.flatnonzero(voxels[:, number])
        if on.size:
            mean = float(presence[on].mean())
            found.append(Track(number, int(on[0]), int(on[-1]), mean, int(voxels[:, number].sum())))
    return found


def _averaged(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    count = len(values)
    result = np.zeros_like(values)
    for offset in range(-window, window + 1):
        weight = (window + 1 - abs(offset)) / (window + 1) ** 2
        result += weight * values[np.clip(np.arange(count) + offset, 0, count - 1)]
    return result


def _root(parent: list[int], one: int) -> int:
    while parent[one] != one:
        parent[one] = parent[parent[one]]
        one = parent[one]
    return one


def _join(parent: list[int], first: int, second: int) -> None:
    # the smaller number stands for both, so that numbers follow the order of slices
    low, high = sorted((_root(parent, first), _root(parent, second)))
    parent[high] = low
