"""The page of figures on whole volumes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from training.volumes.score import VolumeScore, dice_of, gains, interval

_WORDS = {
    "slices": "each slice by itself, a model of single slices",
    "slices, consistent": "the same answers, made consistent along the volume (`training/volumes/consistency.py`)",
    "2.5D": "each slice with the two beside it as channels, a model trained so (recipe field `neighbours`)",
    "2.5D, consistent": "those answers, made consistent",
    "tracker": "SAM3's tracker follows the single-slice model's mask of its surest slice (`follow.py`)",
}


def page(
    found: Mapping[str, Mapping[str, Sequence[VolumeScore]]],
    chosen: Mapping[str, Any],
    trained: Sequence[str],
    records: Mapping[str, Mapping[str, Any]],
    tracker: Mapping[str, Any],
    base: str,
    threads: int,
) -> str:
    """Markdown of the figures.

    Args:
        found: split -> way -> scores of its volumes.
        chosen: way -> its settings, None where it has none.
        trained: datasets that were trained on.
        records: `train.json` of the two models.
        tracker: `tracker.json`.
        base: the way that the others are compared with.
        threads: of the processor.
    """
    slices = records["slices"]
    lines = [
        "# Whole volumes by text",
        "",
        "Written by `python -m training.volumes.measure`. A volume is segmented for the name of a concept; nobody",
        "says on which slice it is. Dice is over all voxels of the volume, mean over the concepts in it; false alarms",
        "are the share of slices without the concept on which something was marked. Brackets hold 95 % intervals,",
        "volumes drawn again 2,000 times; of one volume there is none.",
        "",
        f"Models: recipe `{slices['recipe']['name']}`, {slices['steps']} steps each, seed {slices['seed']}, on the",
        f"training volumes of {', '.join(trained)}.",
        f"The tracker ({tracker['parameters']:,} parameters beside the shared ViT) was trained from nothing for",
        f"{tracker['steps']} steps of {tracker['batch']} sequences of {tracker['length']} slices, on",
        f"{tracker['volumes']} of those volumes: its figures are those of so small a training, not of SAM3's own",
        "weights.",
        "",
        "| way | what it is | settings, by validation |",
        "| --- | --- | --- |",
    ]
    for way, settings in chosen.items():
        words = ", ".join(f"{name} {value}" for name, value in asdict(settings).items()) if settings else "–"
        lines.append(f"| {way} | {_WORDS[way]} | {words} |")
    for split, ways in found.items():
        lines += ["", f"## {'Test' if split == 'test' else 'Validation (the settings were chosen here)'}", ""]
        lines += [
            f"| dataset | volumes | way | Dice | against {base} | false alarms | seconds a volume |",
            "| --- | ---: | --- | --- | --- | ---: | ---: |",
        ]
        names = sorted({score.dataset for score in ways[base]})
        for name in names:
            lines += _rows(name if name in trained else f"{name} (never trained on)", ways, [name], base)
        mean = [name for name in names if name in trained and name in dice_of(ways[base])]
        if len(mean) > 1:
            lines += _rows(f"mean of {len(mean)} datasets trained on", ways, mean, base)
    lines += [
        "",
        f"Seconds are of {threads} threads of a machine that also did other work: they order the ways, no more.",
        "",
    ]
    return "\n".join(lines)


def _rows(label: str, ways: Mapping[str, Sequence[VolumeScore]], names: list[str], base: str) -> list[str]:
    lines = []
    for way, scores in ways.items():
        ours = [score for score in scores if score.dataset in names]
        dice = dice_of(ours)
        gained = gains(ours, ways[base])
        alarms = [
            float(np.mean(values))
            for name in names
            if (values := [score.alarms for score in ours if score.dataset == name and score.alarms is not None])
        ]
        seconds = np.mean([np.mean([score.seconds for score in ours if score.dataset == name]) for name in names])
        cells = [
            label,
            str(len(ours)),
            way,
            _figure(dice),
            "–" if way == base else _figure(gained, signed=True),
            f"{np.mean(alarms):.3f}" if alarms else "–",
            f"{seconds:.2f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
        label = ""
    return lines


def _figure(values: Mapping[str, Sequence[float]], *, signed: bool = False) -> str:
    if not values:
        return "–"
    form = "+.3f" if signed else ".3f"
    text = format(float(np.mean([np.mean(each) for each in values.values()])), form)
    around = interval(values)
    return f"{text} [{format(around[0], form)}, {format(around[1], form)}]" if around else text
