"""A volume as a row of slices, with the truth and each way's answer below one another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.overlays import PREDICTION_RGB, TRUTH_RGB, paint
from training.volumes.cases import Volume
from training.volumes.evidence import Mask

_SLICES = 10
_SIDE = 96  # pixels


def write_pictures(
    folder: Path,
    split: str,
    volumes: Sequence[Volume],
    ways: Sequence[str],
    answer: Callable[[str, int], Mapping[str, Mask]],
) -> None:
    """One PNG of the first volume of each dataset: its most voluminous concept, truth first, then the ways in order.

    `answer` gives a way's masks, by concept, for the volume with a number.
    """
    folder.mkdir(parents=True, exist_ok=True)
    first = {volume.dataset: number for number, volume in reversed(list(enumerate(volumes)))}
    for dataset, number in first.items():
        volume = volumes[number]
        concept = max(sorted(volume.truth), key=lambda name: int(volume.truth[name].sum()))
        rows = [_row(volume, volume.truth[concept], TRUTH_RGB)]
        rows += [_row(volume, answer(way, number)[concept], PREDICTION_RGB) for way in ways]
        Image.fromarray(np.concatenate(rows)).save(folder / f"{split}-{dataset}-{concept.replace(' ', '_')}.png")


def _row(volume: Volume, mask: Mask, colour: tuple[int, int, int]) -> NDArray[np.uint8]:
    count = len(volume.pixels)
    panels = []
    for number in np.unique(np.linspace(0, count - 1, min(count, _SLICES)).round().astype(int)):
        grey = Image.fromarray(volume.pixels[number][..., 0]).resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
        small = Image.fromarray(mask[number].astype(np.uint8) * 255).resize((_SIDE, _SIDE), Image.Resampling.NEAREST)
        panels.append(paint(np.asarray(grey.convert("RGB")), np.asarray(small) > 127, colour))
    return np.concatenate(panels, axis=1)
