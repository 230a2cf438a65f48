"""The MLflow pyfunc: images and text prompts in, masks as COCO RLE out.

MLflow loads it through `loader_module`, which is an import and a folder of safetensors and JSON:
nothing of ours is ever pickled. The module ships as code inside the model, so it imports only
what ships with it.

Input: a row per (image, prompt), as a pandas DataFrame, a dict of columns, one dict, or a list of
dicts. `image` is PNG or JPEG bytes, the same in base64, a file path, or a uint8 array
(height, width) or (height, width, 3). `prompt` is text.

Output: a dict per row, in the order of the rows:
`{"prompt", "score", "rle": {"size": [height, width], "counts"}, "instances": [{"score", "bbox_xyxy", "rle"}]}`;
scores in 0…1, boxes in pixels of the given image.
"""

from __future__ import annotations

import base64
import binascii
import importlib
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from infra.errors import DataError, UsageError
from infra.storage import read_json, sha256_bytes
from preprocessing.schema import rle

if TYPE_CHECKING:
    import pandas as pd

Image = NDArray[np.uint8]
Row = dict[str, Any]

# Longer strings are pictures in base64: Linux allows no longer path.
_LONGEST_PATH = 4096


class Segmenter(Protocol):
    """What the class named by `engine` in `config.json` offers."""

    def segment(self, image_u8_hwc: Image, prompts: list[str]) -> list[dict[str, Any]]:
        """One dict per prompt: prompt, score, mask (height, width), instances."""
        ...


def load_engine(folder: Path) -> Segmenter:
    """Load the segmenter that a candidate folder's `config.json` names as `module:Class`."""
    config = read_json(folder / "config.json")
    engine = config.get("engine")
    if not isinstance(engine, str) or engine.count(":") != 1:
        msg = f"{folder / 'config.json'}: expected \"engine\" as 'module:Class', found {engine!r}"
        raise DataError(msg)
    module, _, name = engine.partition(":")
    try:
        loader = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        msg = f"{folder / 'config.json'}: the engine {engine!r} cannot be imported ({error}); install its requirements"
        raise DataError(msg) from error
    segmenter: Segmenter = loader.load(folder)
    return segmenter


def decode_image(value: Any) -> Image:
    """Any accepted form of an image as uint8 (height, width, 3)."""
    if isinstance(value, np.ndarray):
        return _as_rgb(value)
    payload, what = _payload(value)
    from PIL import Image as Pillow
    from PIL import UnidentifiedImageError

    try:
        with Pillow.open(io.BytesIO(payload)) as picture:
            return np.asarray(picture.convert("RGB"), dtype=np.uint8)
    except (UnidentifiedImageError, OSError) as error:
        msg = f"image: expected PNG or JPEG, found {what} that cannot be decoded ({error})"
        raise DataError(msg) from error


def encode_png(image: Image) -> bytes:
    """A uint8 image (height, width, 3) as PNG bytes."""
    from PIL import Image as Pillow

    buffer = io.BytesIO()
    Pillow.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()


def rows_of(model_input: Any) -> list[Row]:
    """The input as a list of `{"image", "prompt"}`; UsageError where a row lacks one of them.

    A row with a list of prompts is a row per prompt: one image, several questions.
    """
    given: list[Row]
    if hasattr(model_input, "to_dict"):
        given = model_input.to_dict(orient="records")
    elif isinstance(model_input, dict):
        given = [model_input]
    elif isinstance(model_input, (list, tuple)):
        given = [dict(row) for row in model_input]
    else:
        msg = f"input: expected a DataFrame, a dict or a list of dicts, found {type(model_input).__name__}"
        raise UsageError(msg)
    rows = []
    for number, row in enumerate(given):
        missing = {"image", "prompt"} - row.keys()
        if missing:
            msg = f"input row {number}: expected the columns image and prompt, {sorted(missing)} missing"
            raise UsageError(msg)
        rows += _expanded(row["image"], row["prompt"])
    for number, row in enumerate(rows):
        if not isinstance(row["prompt"], str) or not row["prompt"].strip():
            msg = f"input row {number}: expected a prompt of words, found {row['prompt']!r}"
            raise UsageError(msg)
    return rows


class Predictor:
    """A loaded model that answers rows of (image, prompt)."""

    def __init__(self, segmenter: Segmenter) -> None:
        self._segmenter = segmenter

    def predict(self, model_input: pd.DataFrame | dict[str, Any] | list[Row], params: Any = None) -> list[Row]:
        """Segment every row; rows with the same image share one pass over it."""
        rows = rows_of(model_input)
        groups: dict[Any, list[int]] = {}
        for number, row in enumerate(rows):
            groups.setdefault(_identity(row["image"]), []).append(number)
        answers: list[Row] = [{} for _ in rows]
        for numbers in groups.values():
            image = decode_image(rows[numbers[0]]["image"])
            results = self._segmenter.segment(image, [rows[number]["prompt"] for number in numbers])
            for number, result in zip(numbers, results, strict=True):
                answers[number] = to_json(result)
        return answers


def to_json(result: dict[str, Any]) -> Row:
    """One result of a segmenter with its masks as COCO RLE: plain JSON values."""
    return {
        "prompt": result["prompt"],
        "score": float(result["score"]),
        "rle": _rle(result["mask"]),
        "instances": [
            {
                "score": float(instance["score"]),
                "bbox_xyxy": [float(value) for value in instance["bbox_xyxy"]],
                "rle": _rle(instance["mask"]),
            }
            for instance in result["instances"]
        ],
    }


def _load_pyfunc(data_path: str) -> Predictor:
    """MLflow's entry point: `data_path` is the candidate folder inside the model."""
    return Predictor(load_engine(Path(data_path)))


def _rle(mask: Any) -> Row:
    array = np.asarray(mask)
    return {"size": [int(array.shape[0]), int(array.shape[1])], "counts": rle.encode(array)}


def _expanded(image: Any, prompt: Any) -> list[Row]:
    """A row with a list of prompts as a row per prompt, of one image or of as many images."""
    if isinstance(prompt, str) or not isinstance(prompt, (list, tuple, np.ndarray)):
        return [{"image": image, "prompt": prompt}]
    images = list(image) if isinstance(image, (list, tuple)) else [image] * len(prompt)
    if len(images) != len(prompt):
        msg = f"input: expected as many images as prompts, found {len(images)} and {len(prompt)}"
        raise UsageError(msg)
    return [{"image": one, "prompt": str(text)} for one, text in zip(images, prompt, strict=True)]


def _identity(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return (value.shape, sha256_bytes(np.ascontiguousarray(value).tobytes()))
    return bytes(value) if isinstance(value, (bytearray, memoryview)) else value


def _as_rgb(array: NDArray[Any]) -> Image:
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3):
        msg = f"image: expected a uint8 array (height, width) or (height, width, 3), found {array.dtype} {array.shape}"
        raise DataError(msg)
    return np.repeat(array[:, :, None], 3, axis=2) if array.ndim == 2 else array


def _payload(value: Any) -> tuple[bytes, str]:
    """The bytes of an encoded image, and in words where they came from."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value), f"{len(value)} bytes"
    if isinstance(value, os.PathLike):
        return _read(Path(value)), str(value)
    if not isinstance(value, str):
        msg = f"image: expected bytes, base64 text, a file path or a uint8 array, found {type(value).__name__}"
        raise DataError(msg)
    if len(value) <= _LONGEST_PATH and Path(value).is_file():
        return _read(Path(value)), value
    try:
        return base64.b64decode(value, validate=True), "base64 text"
    except (binascii.Error, ValueError) as error:
        shown = value if len(value) < 80 else value[:77] + "..."
        msg = f"image: expected a file path or PNG or JPEG in base64, found {shown!r}: no such file, not base64"
        raise DataError(msg) from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        msg = f"image: {path} cannot be read ({error})"
        raise DataError(msg) from error
