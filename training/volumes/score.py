"""Figures of whole volumes: Dice over all slices, slices with something marked where nothing is, and intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from training.volumes.cases import Volume
from training.volumes.evidence import Mask

DRAWS = 2000
"""Bootstrap samples of an interval."""


@dataclass(frozen=True)
class VolumeScore:
    """One way's answer to one volume."""

    dataset: str
    case_id: str
    dice: float | None  # mean over the concepts that are in the volume; None where none is
    alarms: float | None  # share of (slice, concept) known to be empty on which something was marked
    seconds: float


def score_volume(volume: Volume, answers: Mapping[str, Mask], seconds: float) -> VolumeScore:
    """Hold the answers (slices, height, width) for every concept of a volume against its truth.

    Slices that say neither that a concept is there nor that it is not are left out.
    """
    dices, empty, alarmed = [], 0, 0
    for concept, truth in volume.truth.items():
        known = volume.known[concept]
        said, true = answers[concept][known], truth[known]
        if true.any():
            dices.append(2 * int((said & true).sum()) / (int(said.sum()) + int(true.sum())))
        nothing = ~true.any(axis=(1, 2))
        empty += int(nothing.sum())
        alarmed += int(said[nothing].any(axis=(1, 2)).sum())
    return VolumeScore(
        volume.dataset,
        volume.case_id,
        float(np.mean(dices)) if dices else None,
        alarmed / empty if empty else None,
        seconds,
    )


def mean_over_datasets(scores: Sequence[VolumeScore]) -> float:
    """Mean Dice of each dataset's volumes, and the mean of those."""
    return float(np.mean([np.mean(values) for values in _by_dataset(scores).values()]))


def interval(values: Mapping[str, Sequence[float]], seed: int = 0) -> tuple[float, float] | None:
    """95 % percentile interval of the mean over datasets of their means, volumes drawn again within each dataset.

    None where no dataset has two volumes: of one volume nothing is known about others.
    """
    if not any(len(each) > 1 for each in values.values()):
        return None
    draw = np.random.default_rng(seed)
    means = np.zeros(DRAWS)
    for each in values.values():
        known = np.asarray(each, dtype=np.float64)
        means += known[draw.integers(0, known.size, (DRAWS, known.size))].mean(axis=1) / len(values)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def dice_of(scores: Sequence[VolumeScore]) -> dict[str, list[float]]:
    """Dataset -> Dice of its volumes, in their order."""
    return _by_dataset(scores)


def gains(scores: Sequence[VolumeScore], base: Sequence[VolumeScore]) -> dict[str, list[float]]:
    """Dataset -> Dice of its volumes less what `base` has on the same volumes."""
    before = {(score.dataset, score.case_id): score.dice for score in base}
    found: dict[str, list[float]] = {}
    for score in scores:
        old = before[score.dataset, score.case_id]
        if score.dice is not None and old is not None:
            found.setdefault(score.dataset, []).append(score.dice - old)
    return found


def _by_dataset(scores: Sequence[VolumeScore]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for score in scores:
        if score.dice is not None:
            found.setdefault(score.dataset, []).append(score.dice)
    return found
