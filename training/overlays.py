"""Overlay pictures: image, truth and prediction side by side."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

HEIGHT = 256  # pixels of each panel
GAP = 6
GALLERY = 20
"""Best, median and worst pairs over all datasets that are shown."""
TRUTH_RGB = (46, 204, 113)
PREDICTION_RGB = (255, 140, 0)


def paint(image: NDArray[np.uint8], mask: NDArray[np.bool_], colour: tuple[int, int, int]) -> NDArray[np.uint8]:
    """A mask over an RGB image (height, width, 3): tinted inside, solid on its outline."""
    inside = mask
    core = np.zeros_like(mask)
    core[1:-1, 1:-1] = mask[1:-1, 1:-1] & mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:]
    result = image.astype(np.float32)
    tint = np.asarray(colour, dtype=np.float32)
    result[inside] = 0.65 * result[inside] + 0.35 * tint
    result[inside & ~core] = tint
    return result.astype(np.uint8)


def triptych(pixels: NDArray[np.uint8], truth: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> bytes:
    """PNG of image, truth and prediction; all (height, width), resized to one panel height."""
    height, width = truth.shape
    panel_width = max(1, round(width * HEIGHT / height))
    rgb = Image.fromarray(np.repeat(pixels, 3, axis=2) if pixels.shape[-1] == 1 else pixels)
    base = np.asarray(rgb.resize((panel_width, HEIGHT), Image.Resampling.BILINEAR))
    panels = [base]
    for mask, colour in ((truth, TRUTH_RGB), (predicted, PREDICTION_RGB)):
        small = Image.fromarray(mask.astype(np.uint8) * 255).resize((panel_width, HEIGHT), Image.Resampling.BOX)
        panels.append(paint(base, np.asarray(small) > 127, colour))
    gap = np.full((HEIGHT, GAP, 3), 255, dtype=np.uint8)
    sheet = np.concatenate([panels[0], gap, panels[1], gap, panels[2]], axis=1)
    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, format="PNG", optimize=False, compress_level=6)
    return buffer.getvalue()


def choose(rows: list[dict[str, Any]], per_dataset: int = 3, gallery: int = GALLERY) -> list[dict[str, Any]]:
    """Which pairs to show, by Dice of "after" with text prompts; each row with "shown_as".

    Of each dataset the best, the median and the worst ("dataset"); over all of them the `gallery` best ("best"), those
    around the median ("median") and the worst ("worst"). Best and worst alike: a gallery of successes would mislead.
    A pair is there once, however often it is shown.
    """
    pairs = [row for row in rows if row["model"] == "after" and row["prompt"] == "text" and row["present"]]
    ranked = sorted(pairs, key=lambda row: (-row["dice"], row["dataset"], row["sample_id"], row["concept"]))
    shown: list[tuple[str, dict[str, Any]]] = []
    for dataset in sorted({row["dataset"] for row in pairs}):
        own = [row for row in ranked if row["dataset"] == dataset]
        shown.extend(("dataset", own[place]) for place in sorted({0, len(own) // 2, len(own) - 1})[:per_dataset])
    middle = max(0, len(ranked) // 2 - gallery // 2)
    parts = {"best": ranked[:gallery], "median": ranked[middle : middle + gallery], "worst": ranked[::-1][:gallery]}
    shown.extend((name, row) for name, part in parts.items() for row in part)
    chosen: dict[tuple[str, str, str], dict[str, Any]] = {}
    for name, row in shown:
        key = (row["dataset"], row["sample_id"], row["concept"])
        chosen.setdefault(key, {**row, "shown_as": []})["shown_as"].append(name)
    return list(chosen.values())
