"""Overlay pictures: image, truth and prediction side by side."""

from __future__ import annotations

import io
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

GALLERY = 20  # best, median and worst pairs over all datasets that are shown
HEIGHT = 256  # pixels of each panel
GAP = 6
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


def choose(rows: list[dict[str, Any]], gallery: int = GALLERY) -> list[dict[str, Any]]:
    """Which pairs to show: the best, the median and the worst by Dice of "after", text prompts, over all datasets.

    Best and worst alike: a gallery of successes would mislead. Where many pairs share one Dice (0 most of all), the
    datasets take turns, so that one of them does not fill the gallery. With fewer than 3 x `gallery` pairs all are
    shown. Then each dataset's own best, median and worst, so that no dataset goes unseen.

    Args:
        rows: of `training.summary.ROWS_SCHEMA`, in any order; the choice does not depend on it.
        gallery: how many of each part.

    Returns:
        Copies of rows with `shown_as`, a list: "worst" (worst first), "median" or "best" (best first), and "dataset"
        where the pair is its dataset's best, median or worst; those that are that alone come last. No pair twice.
    """
    pairs = [row for row in rows if row["model"] == "after" and row["prompt"] == "text" and row["present"]]
    chosen = {_key(row): {**row, "shown_as": [part]} for part, row in _parts(pairs, gallery)}
    for dataset in sorted({row["dataset"] for row in pairs}):
        ranked = _ranked([row for row in pairs if row["dataset"] == dataset], best_first=True)
        for place in sorted({0, len(ranked) // 2, len(ranked) - 1}):
            chosen.setdefault(_key(ranked[place]), {**ranked[place], "shown_as": []})["shown_as"].append("dataset")
    return list(chosen.values())


def _parts(pairs: list[dict[str, Any]], each: int) -> list[tuple[str, dict[str, Any]]]:
    best = min(each, -(-len(pairs) // 3))
    worst = min(each, -(-(len(pairs) - best) // 2))
    chosen_best = _ranked(pairs, best_first=True)[:best]
    taken = {_key(row) for row in chosen_best}
    chosen_worst = _ranked([row for row in pairs if _key(row) not in taken], best_first=False)[:worst]
    taken |= {_key(row) for row in chosen_worst}
    # as many were taken from both ends, to one pair: the middle of the others is the middle of all
    others = [row for row in _ranked(pairs, best_first=True) if _key(row) not in taken]
    median = min(each, len(others))
    start = (len(others) - median) // 2
    parts = (("worst", chosen_worst), ("median", others[start : start + median]), ("best", chosen_best))
    return [(part, row) for part, chosen in parts for row in chosen]


def _key(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["dataset"], row["sample_id"], row["concept"]


def _ranked(pairs: list[dict[str, Any]], *, best_first: bool) -> list[dict[str, Any]]:
    """Pairs by Dice; of those that share it each dataset's first, then each dataset's second, and so on."""
    turns: Counter[tuple[float, str]] = Counter()
    keyed = []
    for row in sorted(pairs, key=_key):
        place = (row["dice"], row["dataset"])
        keyed.append(((-row["dice"] if best_first else row["dice"], turns[place], *_key(row)), row))
        turns[place] += 1
    return [row for _, row in sorted(keyed, key=lambda item: item[0])]
