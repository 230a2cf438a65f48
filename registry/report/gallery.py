"""The pictures of an evaluation as thumbnails inside the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Collection
from pathlib import Path
from typing import Any

from registry.report.words import number
from registry.tracking import read_overlays

MOST_BYTES = 4_000_000  # of all pictures in the page: what a mailbox takes and a phone opens
SIZES = ((720, 80), (540, 75), (400, 70), (300, 60))  # pixels of image, truth and prediction together; WebP quality
FIRST = 4  # of each part are open; the others are one click away
PARTS = {
    "worst": ("Worst", "Where it fails: the lowest Dice of all."),
    "median": ("Median", "What to expect: the middle of the ranking."),
    "best": ("Best", "Where it does best: the highest Dice of all."),
    "dataset": ("Dataset by dataset", "Best, median and worst of each dataset, where they are not above."),
    "": ("Examples", "Good and bad ones alike."),
}


def gallery(evaluation: Path, external: Collection[str] = ()) -> list[dict[str, Any]]:
    """The overlay pictures by part, each a data URI; one that is `shown_as` several is in the first of `PARTS`.

    All pictures are shown, smaller where they would make the page larger than `MOST_BYTES`.
    """
    entries = read_overlays(evaluation)
    groups: dict[str, list[dict[str, Any]]] = {}
    for entry, uri in zip(entries, thumbnails([evaluation / entry["file"] for entry in entries]), strict=True):
        shown = {
            **entry,
            "uri": uri,
            "external": entry.get("dataset") in external,
            "dice_before": number(entry.get("dice_before")),
            "dice_after": number(entry.get("dice_after")),
        }
        parts = [part for part in PARTS if part in entry.get("shown_as", [])]
        groups.setdefault(parts[0] if parts else "", []).append(shown)
    return [
        {"part": part, "title": title, "note": note, "first": groups[part][:FIRST], "rest": groups[part][FIRST:]}
        for part, (title, note) in PARTS.items()
        if part in groups
    ]


def thumbnails(files: list[Path], most_bytes: int = MOST_BYTES) -> list[str]:
    """Pictures as data URIs, as large as all of them together may be."""
    found: list[str] = []
    for width, quality in SIZES:
        found = [_thumbnail(file, width, quality) for file in files]
        if sum(map(len, found)) <= most_bytes:
            break
    return found


def _thumbnail(file: Path, width: int, quality: int) -> str:
    from PIL import Image

    with Image.open(file) as opened:
        picture = opened.convert("RGB")
    if picture.width > width:
        height = max(1, round(picture.height * width / picture.width))
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, format="WEBP", quality=quality, method=4)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
