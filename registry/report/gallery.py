"""The pictures of an evaluation as thumbnails inside the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Collection
from pathlib import Path
from typing import Any

from registry.report.words import number
from registry.tracking import read_overlays

MOST_PICTURES = 60
WIDTH = 720  # pixels of image, truth and prediction together: what two columns of a desk's page show sharply
_QUALITY = 80
PARTS = {
    "worst": ("Worst", "Where it fails: the lowest Dice of all."),
    "median": ("Median", "What to expect: the middle of the ranking."),
    "best": ("Best", "Where it does best: the highest Dice of all."),
    "": ("Examples", "Good and bad ones alike."),
}
FIRST = 4  # of each part are open; the others are one click away


def gallery(evaluation: Path, external: Collection[str] = ()) -> list[dict[str, Any]]:
    """The overlay pictures by part (best, median, worst), each a data URI."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for entry in read_overlays(evaluation)[:MOST_PICTURES]:
        shown = {
            **entry,
            "uri": thumbnail(evaluation / entry["file"]),
            "external": entry.get("dataset") in external,
            "dice_before": number(entry.get("dice_before")),
            "dice_after": number(entry.get("dice_after")),
        }
        part = entry.get("part", "")
        groups.setdefault(part if part in PARTS else "", []).append(shown)
    return [
        {"part": part, "title": title, "note": note, "first": groups[part][:FIRST], "rest": groups[part][FIRST:]}
        for part, (title, note) in PARTS.items()
        if part in groups
    ]


def thumbnail(file: Path) -> str:
    """A picture as a data URI of WebP, at most `WIDTH` pixels wide: about 10 to 25 kB."""
    from PIL import Image

    with Image.open(file) as opened:
        picture = opened.convert("RGB")
    if picture.width > WIDTH:
        picture = picture.resize((WIDTH, max(1, round(picture.height * WIDTH / picture.width))), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, format="WEBP", quality=_QUALITY, method=4)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
