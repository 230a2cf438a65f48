"""Pictures of a check: images with the contours of their objects, on one page that needs nothing else."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from preprocessing.harmonize.payload import decode
from preprocessing.schema import rle

PICTURES = 12
SIDE_PX = 480
COLOURS = ((230, 60, 60), (50, 130, 240), (60, 190, 90), (240, 180, 40), (170, 80, 220), (40, 200, 200))

Colours = dict[str, tuple[int, int, int]]


class Pictures:
    """Chooses as the cases pass by: the first few, and whatever shows a concept that few pictures show yet."""

    def __init__(self, concepts: tuple[str, ...], most: int = PICTURES) -> None:
        self.colours: Colours = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(concepts)}
        self.made: list[dict[str, str]] = []
        self._most = most
        self._shown: dict[str, int] = dict.fromkeys(concepts, 0)

    def see(self, row: dict[str, Any]) -> None:
        """Take a row of `check` as a picture, or leave it."""
        concepts = sorted({item["concept"] for item in row["objects"]})
        rare = any(self._shown[concept] < 2 for concept in concepts)
        if len(self.made) >= self._most and not (rare and len(self.made) < 2 * self._most):
            return
        for concept in concepts:
            self._shown[concept] += 1
        buffer = io.BytesIO()
        contoured(decode(row["image"]), row["objects"], self.colours).save(buffer, format="JPEG", quality=85)
        uri = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
        self.made.append({"uri": uri, "name": str(row["sample_id"]), "seen": ", ".join(concepts)})


def contoured(pixels: NDArray[np.uint8], objects: list[dict[str, Any]], colours: Colours) -> Image.Image:
    """The image at no more than `SIDE_PX` with the outline of every object in the colour of its concept."""
    height, width = pixels.shape[:2]
    picture = Image.fromarray(pixels).convert("RGB")
    scale = (
        min(1.0, SIDE_PX / max(height, width))
        if max(height, width) > SIDE_PX
        else max(1, SIDE_PX // 2 // max(height, width))
    )
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    shown = np.asarray(picture.resize(size, Image.Resampling.BILINEAR)).copy()
    for item in objects:
        mask = Image.fromarray(rle.decode(item["rle"], height, width))
        inside = np.asarray(mask.resize(size, Image.Resampling.NEAREST)).astype(bool)
        shown[inside & ~ndimage.binary_erosion(inside, border_value=0)] = colours[item["concept"]]
    return Image.fromarray(shown)


def page(found: dict[str, Any], pictures: Pictures) -> str:
    """The whole page for the result of `check`."""
    loader = FileSystemLoader(Path(__file__).with_name("templates"))
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return made.get_template("check.html").render(
        found=found, pictures=pictures.made, colours=list(pictures.colours.items())
    )
