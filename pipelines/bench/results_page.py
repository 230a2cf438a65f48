"""`docs/results.md` from the figures of one run of `pipelines.bench.results`."""

from __future__ import annotations

from typing import Any

import numpy as np

_HEAD = """# Results on the sample data

Written by `python -m pipelines.bench.results`; nothing here is edited by hand. Text prompts alone; Dice on the
samples' own pixel grids, mean over a dataset's present concepts. *start* is the checkpoint before training. The
U-Nets (MONAI's, one for each dataset, the same pixels a side) share the seconds of our whole training, start-up and
choice of thresholds included, equally. The sample sets are small: a dataset's figure is that of a handful of pictures.
"""


def markdown(figures: dict[str, Any]) -> str:
    """The page."""
    one, unet = figures["machine"], figures.get("unet", {})
    versions = ", ".join(f"{name} {value}" for name, value in {**one["versions"], **one.get("peers", {})}.items())
    lines = [
        _HEAD,
        f"{one['date']}: {one['cpu']}, {one['cores']} cores, load before {one['load_before']}; {versions}.",
        "",
        f"Recipe `{figures['recipe']}`, seed {figures['seed']}, {figures['parameters'] / 1e6:.1f} M parameters, "
        f"{figures['image_size']} px, {figures['steps']:,} steps: trained in {figures['train_s'] / 60:.1f} minutes. "
        + (f"Each U-Net: {figures['unet_s']:.0f} s. " if unet else "")
        + f"Split: {figures['split']}.",
        "",
        "| dataset | modality | samples trained on | asked | start | ours | U-Net | absent score |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    inside = {name: entry for name, entry in figures["datasets"].items() if not entry["external"]}
    for name, entry in sorted(inside.items()):
        lines.append(
            f"| {name} | {entry['modality']} | {figures['trained_on'][name].get('train', 0)} | {entry['samples']} "
            f"| {_cell(entry['dice_text_before'])} | {_cell(entry['dice_text_after'])} "
            f"| {_cell(unet.get(name, {}).get('dice'))} | {_cell(entry['score_absent'])} |"
        )
    lines += ["", *_means(inside, unet)]
    outside = {name: entry for name, entry in figures["datasets"].items() if entry["external"]}
    if outside:
        lines += ["", "External sets, which nothing is trained on:", ""]
        lines += ["| dataset | modality | asked | start | ours |", "| --- | --- | ---: | ---: | ---: |"]
        lines += [
            f"| {name} | {entry['modality']} | {entry['samples']} | {_cell(entry['dice_text_before'])} "
            f"| {_cell(entry['dice_text_after'])} |"
            for name, entry in sorted(outside.items())
        ]
    return "\n".join(lines) + "\n"


def _means(inside: dict[str, Any], unet: dict[str, Any]) -> list[str]:
    """Means over the datasets that all have a figure for, and the paired difference with its interval."""
    both = [name for name in inside if inside[name]["dice_text_after"] is not None and _has(unet, name)]
    absent = [entry["score_absent"] for entry in inside.values() if entry["score_absent"] is not None]
    lines = []
    if both:
        ours = np.array([inside[name]["dice_text_after"] for name in both])
        theirs = np.array([unet[name]["dice"] for name in both])
        start = np.array([inside[name]["dice_text_before"] for name in both])
        draws = np.random.default_rng(0).integers(len(both), size=(10_000, len(both)))
        low, high = np.percentile((ours - theirs)[draws].mean(axis=1), [2.5, 97.5])
        lines.append(
            f"Mean over the {len(both)} datasets with a figure of both: start {start.mean():.3f}, "
            f"ours {ours.mean():.3f}, U-Net {theirs.mean():.3f}; ours − U-Net {(ours - theirs).mean():+.3f} "
            f"(95 % interval {low:+.3f} to {high:+.3f}, bootstrap over datasets); "
            f"ours is higher on {int((ours > theirs).sum())} of {len(both)}."
        )
    if absent:
        lines.append(f"Score on absent concepts: {np.mean(absent):.3f} (mean of {len(absent)} datasets).")
    return lines


def _has(unet: dict[str, Any], name: str) -> bool:
    return unet.get(name, {}).get("dice") is not None


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
