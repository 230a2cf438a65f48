"""A volume as a row of slices, with the truth and each way's answer below one another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from training.overlays import PREDICTION_RGB, TRUTH_RGB, paint

if TYPE_CHECKING:
    from training.volumes.measure import Models, Seen

_SLICES = 10
_SIDE = 96  # pixels


def write_pictures(
    folder: Path, split: str, volumes: Sequence[Seen], chosen: Mapping[str, Any], models: Models
) -> None:
    """One PNG of the first volume of each dataset: its most voluminous concept, truth first, then the ways in order."""
    from training.volumes.measure import answer

    folder.mkdir(parents=True, exist_ok=True)
    first = {seen.volume.dataset: seen for seen in reversed(volumes)}
    for dataset, seen in first.items():
        truth = seen.volume.truth
        concept = max(sorted(truth), key=lambda name: int(truth[name].sum()))
        rows = [_row(seen, truth[concept], TRUTH_RGB)]
        rows += [
            _row(seen, answer(way, settings, seen, models)[0][concept], PREDICTION_RGB)
            for way, settings in chosen.items()
        ]
        Image.fromarray(np.concatenate(rows)).save(folder / f"{split}-{dataset}-{concept.replace(' ', '_')}.png")


def _row(seen: Seen, mask: np.ndarray[Any, np.dtype[np.bool_]], colour: tuple[int, int, int]) -> Any:
    count = len(seen.volume.pixels)
    panels = []
    for number in np.unique(np.linspace(0, count - 1, min(count, _SLICES)).round().astype(int)):
        grey = Image.fromarray(seen.volume.pixels[number][..., 0]).resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
        small = Image.fromarray(mask[number].astype(np.uint8) * 255).resize((_SIDE, _SIDE), Image.Resampling.NEAREST)
        panels.append(paint(np.asarray(grey.convert("RGB")), np.asarray(small) > 127, colour))
    return np.concatenate(panels, axis=1)
