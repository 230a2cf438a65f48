"""What a caller may send: rows of images and prompts in every form that Python and REST have."""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from infra.errors import DataError, UsageError
from infra.storage import sha256_bytes

Row = dict[str, Any]

# Longer strings are files in base64: Linux allows no longer path.
_LONGEST_PATH = 4096
# Where it is set, no file outside of it is read: for servers whose callers should not name any file of the machine.
SERVED_FOLDER = "SEGFOUNDRY_SERVED_FOLDER"


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


def resolved(value: Any) -> Any:
    """An image as an array, a volume's dict, the bytes of a file, or a path that exists.

    Text is the path of a file or folder, else base64. Raises DataError for anything else.
    """
    if isinstance(value, (np.ndarray, bytes)):
        return value
    if isinstance(value, Mapping):
        return {**value, "volume": np.asarray(value.get("volume"))}
    if _is_nested(value):
        return _array(value)
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, os.PathLike):
        return _existing(Path(value))
    if not isinstance(value, str):
        msg = (
            "image: expected bytes, base64 text, a path, a uint8 array or a volume's dict, "
            f"found {type(value).__name__}"
        )
        raise DataError(msg)
    if len(value) <= _LONGEST_PATH and _is_there(value):
        return _existing(Path(value))
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        shown = value if len(value) < 80 else value[:77] + "..."
        msg = f"image: expected a path that exists, or a file in base64, found {shown!r}: no such file, not base64"
        raise DataError(msg) from error


def identity(value: Any) -> Any:
    """What is equal for equal images, so that an image of several rows is read and encoded once."""
    if isinstance(value, np.ndarray):
        return (value.shape, value.dtype.str, sha256_bytes(np.ascontiguousarray(value).tobytes()))
    if isinstance(value, Mapping):
        return tuple((name, identity(np.asarray(one))) for name, one in sorted(value.items()))
    return str(value) if isinstance(value, Path) else value


def _is_there(text: str) -> bool:
    try:
        return Path(text).exists()
    except (OSError, ValueError):  # a name that is too long, or with a zero byte
        return False


def _existing(path: Path) -> Path:
    allowed = os.environ.get(SERVED_FOLDER)
    if allowed and not path.resolve().is_relative_to(Path(allowed).resolve()):
        msg = f"image: expected a path below {SERVED_FOLDER}, found one outside of it; send the file itself in base64"
        raise DataError(msg)
    if not path.exists():
        msg = f"image: {path} cannot be read: no such file or folder"
        raise DataError(msg)
    return path


def _is_nested(value: Any) -> bool:
    """Whether a value is an array as JSON has it: rows of numbers, or of colours."""
    return isinstance(value, (list, tuple)) and bool(value) and isinstance(value[0], (list, tuple))


def _array(value: Any) -> Any:
    try:
        array = np.asarray(value)
    except ValueError as error:
        msg = f"image: expected rows of one length, found an array that is none ({error})"
        raise DataError(msg) from error
    if array.dtype.kind in "iu" and array.size and array.min() >= 0 and array.max() <= 255:
        return array.astype(np.uint8)
    return array


def _expanded(image: Any, prompt: Any) -> list[Row]:
    """A row with a list of prompts as a row per prompt, of one image or of as many images."""
    if isinstance(prompt, str) or not isinstance(prompt, (list, tuple, np.ndarray)):
        return [{"image": image, "prompt": prompt}]
    several = isinstance(image, (list, tuple)) and not _is_nested(image)
    images = list(image) if several else [image] * len(prompt)
    if len(images) != len(prompt):
        msg = f"input: expected as many images as prompts, found {len(images)} and {len(prompt)}"
        raise UsageError(msg)
    return [{"image": one, "prompt": str(text)} for one, text in zip(images, prompt, strict=True)]
