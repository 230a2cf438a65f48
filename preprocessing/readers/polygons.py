"""Outlines as coordinates: LabelMe JSON, GeoJSON, ImageScope and ASAP XML, plain text. The content says which.

Coordinates are pixels of the full picture, x to the right and y down, origin at its upper left corner.
"""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from infra.errors import CaseError
from preprocessing.readers import decoding

_MAX_BYTES = 1 << 30
_ELLIPSE_CORNERS = 90
# ImageScope's `Type` of a region.
_IMAGESCOPE = {"0": "polygon", "1": "rectangle", "2": "ellipse", "3": "arrow", "4": "ruler"}


@dataclass(frozen=True)
class Shape:
    """One outline: the names that the file gives it, best first (may be none), and its points (n, 2) as (x, y).

    `kind` is polygon, rectangle, mask, or what encloses nothing (point, line …); a `hole` is cut out of the others.
    A `mask` has pixels (height, width) beside its box: the first of `points_xy_px` is where their upper left one lies.
    """

    names: tuple[str, ...]
    kind: str
    points_xy_px: NDArray[np.float64]
    hole: bool = False
    pixels: NDArray[np.bool_] | None = None


def read_shapes(path: Path) -> list[Shape]:
    """Every shape of a file, in its order. Raises CaseError `unreadable`, `too_large`."""
    if path.stat().st_size > _MAX_BYTES:
        raise CaseError("too_large", expected=f"at most {_MAX_BYTES} bytes", found=f"{path.stat().st_size}")
    with decoding(path, "a file of polygons"):
        content = path.read_bytes().decode("utf-8-sig")
        start = content.lstrip()[:1]
        if start in ("{", "["):
            return list(_json(json.loads(content)))
        if start == "<":
            return list(_xml(content))
        return list(_text(content))


def _shape(names: tuple[str, ...], kind: str, points: Any, hole: bool = False) -> Shape:
    array = np.asarray(points, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] < 2 or not np.isfinite(array).all():
        msg = f"a {kind} needs points (x, y) of finite numbers, found an array of shape {array.shape}"
        raise ValueError(msg)
    array = array[:, :2]
    if kind == "rectangle" and len(array) == 2:
        (left, top), (right, bottom) = array
        array = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
    elif kind == "circle" and len(array) == 2:
        radius = math.dist(array[0], array[1])
        kind, array = "polygon", _ellipse(array[0], radius, radius)
    elif kind == "ellipse" and len(array) in (2, 4):
        low, high = array.min(axis=0), array.max(axis=0)
        kind, array = "polygon", _ellipse((low + high) / 2, *((high - low) / 2))
    return Shape(tuple(name.strip().lower() for name in names if name.strip()), kind, array, hole)


def _ellipse(centre: NDArray[np.float64], x: float, y: float) -> NDArray[np.float64]:
    turn = np.linspace(0, 2 * np.pi, _ELLIPSE_CORNERS, endpoint=False)
    return np.stack([centre[0] + x * np.cos(turn), centre[1] + y * np.sin(turn)], axis=1)


def _json(value: Any) -> Iterator[Shape]:
    """LabelMe (`shapes`) or GeoJSON (`features`, as QuPath writes it)."""
    if isinstance(value, dict) and "shapes" in value:
        for shape in value["shapes"]:
            if shape.get("shape_type") == "mask":
                yield _labelme_mask(shape)
                continue
            yield _shape((str(shape["label"]),), str(shape.get("shape_type") or "polygon"), shape["points"])
        return
    features = value.get("features") if isinstance(value, dict) else value
    if not isinstance(features, list) or not all(isinstance(each, dict) and "geometry" in each for each in features):
        msg = "neither LabelMe `shapes` nor GeoJSON `features`"
        raise ValueError(msg)
    for feature in features:
        said = feature.get("properties") or {}
        names = (str((said.get("classification") or {}).get("name") or ""), str(said.get("name") or ""))
        geometry = feature["geometry"]
        kind = geometry["type"]
        if kind not in ("Polygon", "MultiPolygon"):
            yield _shape(names, kind.lower(), np.atleast_2d(np.asarray(geometry["coordinates"], dtype=np.float64)))
            continue
        for rings in geometry["coordinates"] if kind == "MultiPolygon" else [geometry["coordinates"]]:
            for number, ring in enumerate(rings):
                yield _shape(names, "polygon", ring, hole=number > 0)


def _labelme_mask(shape: dict[str, Any]) -> Shape:
    """LabelMe's `mask` (its AI tools draw them): a PNG in base64, and the box that it fills, both corners inside."""
    box = _shape((str(shape["label"]),), "mask", shape["points"])
    content = base64.b64decode(str(shape["mask"]), validate=True)
    if len(box.points_xy_px) != 2:
        msg = f"a mask needs the two corners of its box, found {len(box.points_xy_px)} points"
        raise ValueError(msg)
    wide, tall = (round(side) + 1 for side in (box.points_xy_px[1] - box.points_xy_px[0]).tolist())
    with Image.open(io.BytesIO(content), formats=["PNG"]) as image:  # its size first, then its pixels
        if image.size != (wide, tall):
            msg = f"a mask in a box of {wide} x {tall} pixels, found one of {image.size[0]} x {image.size[1]}"
            raise ValueError(msg)
        return replace(box, pixels=np.asarray(image.convert("L")) > 0)


def _xml(content: str) -> Iterator[Shape]:
    """ImageScope (`Region` with `Vertex` X, Y) or ASAP (`Annotation` with `Coordinate` X, Y)."""
    if "<!ENTITY" in content or "<!DOCTYPE" in content:
        msg = "an XML with a document type of its own"
        raise ValueError(msg)
    root = ElementTree.fromstring(content)
    if root.tag not in ("Annotations", "ASAP_Annotations"):
        msg = f"neither ImageScope nor ASAP XML, but <{root.tag}>"
        raise ValueError(msg)
    for layer in root.iter("Annotation"):
        layer_name = layer.get("Name") or ""
        attributes = [(each.get("Name") or "", each.get("Value") or "") for each in layer.findall("./Attributes/*")]
        said = tuple(text for pair in attributes for text in pair)
        for region in layer.iter("Region"):
            points = [(float(each.attrib["X"]), float(each.attrib["Y"])) for each in region.iter("Vertex")]
            kind = _IMAGESCOPE.get(region.get("Type") or "0", "unknown")
            names = (region.get("Text") or "", layer_name, *said)
            if points:
                yield _shape(names, kind, points, hole=region.get("NegativeROA") == "1")
        coordinates = sorted(layer.iter("Coordinate"), key=lambda each: int(each.get("Order") or 0))
        if coordinates:
            points = [(float(each.attrib["X"]), float(each.attrib["Y"])) for each in coordinates]
            kind = (layer.get("Type") or "Polygon").lower()
            names = (layer.get("PartOfGroup") or "", layer_name)
            yield _shape(names, "polygon" if kind in ("polygon", "spline") else kind, points)


def _text(content: str) -> Iterator[Shape]:
    """`x y` a line, by spaces, tabs or commas; an empty line begins a further polygon."""
    points: list[tuple[float, float]] = []
    for line in [*content.splitlines(), ""]:
        words = line.replace(",", " ").split()
        if not words:
            if points:
                yield _shape((), "polygon", points)
            points = []
        elif len(words) == 2:
            points.append((float(words[0]), float(words[1])))
        else:
            msg = f"expected two numbers a line, found {line[:40]!r}"
            raise ValueError(msg)
