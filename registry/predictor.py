"""The MLflow pyfunc: images, volumes and text prompts in; masks, boxes and scores out.

MLflow loads it through `loader_module`, which is an import and a folder of safetensors and JSON:
nothing of ours is ever pickled. The module ships as code inside the model, so it imports only
what ships with it; the engine and the reader of files are named in the folder and imported by name.

Input: a row per (image, prompt), as a pandas DataFrame, a dict of columns, one dict, or a list of dicts.
`prompt` is text. `image` is

- the path of a picture (PNG, JPEG, TIFF, …), of a volume (NIfTI, NRRD, MetaImage), of a DICOM file, or of a folder
  with one DICOM series; or the bytes of such a file, a ZIP of the series; or these bytes in base64;
- a uint8 array (height, width) or (height, width, 3), also as nested lists;
- `{"volume": array (z, y, x), "spacing_mm_zyx": …}`, optionally with `origin_mm_xyz` and `direction` (LPS).

Parameters: `masks` "rle" (default), "array" or "file" (PNG or .nii.gz in base64); `intensity`, `like`, `axis` and
`frame` say how intensities and slices are read (`preprocessing.serving`).

Output: a dict per row, in the order of the rows: `prompt`, `score` (0…1), `kind` ("picture" or "volume"), `axes`
("yx" or "zyx") and `size` of the original grid, `intensity` (the rule that was used), `geometry` of a volume
(spacing_mm_xyz, origin_mm_xyz, direction; LPS), the mask, and `instances`, each with `score`, its box (`bbox_xyxy` in
pixels or `bbox_xyzxyz` in voxels of the original grid, ends exclusive) and its mask. A mask is `rle`
{"size": [height, width], "counts"} of a picture, `slices` [{"index" (z), "rle"}] of a volume, empty slices left out;
or `mask`, a uint8 array of `size`; or `file`.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from infra.errors import DataError
from infra.storage import read_json
from registry.answers import answer_row, check_form
from registry.reading import Row, identity, resolved, rows_of

if TYPE_CHECKING:
    import pandas as pd

Image = NDArray[np.uint8]

SERVING_FILE = "serving.json"
READER = "preprocessing.serving:Reader"


class Segmenter(Protocol):
    """What the class named by `engine` in `config.json` offers; `segment_volume` where it knows volumes."""

    def segment(self, image_u8_hwc: Image, prompts: list[str]) -> list[dict[str, Any]]:
        """One dict per prompt: prompt, score, mask (height, width), instances."""
        ...


class Scene(Protocol):
    """What a reader made of a file: pixels for the engine, and the way back (`preprocessing.scene.Scene`)."""

    pixels: Image
    axes: str
    shape: tuple[int, ...]

    def back(self, found: NDArray[Any]) -> NDArray[Any]:
        """A mask or labels of the grid of `pixels` on the original grid."""
        ...


class Reader(Protocol):
    """What the class named by `reader` in `serving.json` offers."""

    def read(self, given: Any, params: Mapping[str, Any] | None = None) -> Scene:
        """Read an array, bytes, a file or a folder."""
        ...


def load_engine(folder: Path) -> Segmenter:
    """Load the segmenter that a candidate folder's `config.json` names as `module:Class`."""
    segmenter: Segmenter = _named(folder / "config.json", "engine", read_json(folder / "config.json").get("engine"))
    return segmenter


def load_reader(folder: Path) -> Reader:
    """Load the reader that a model folder's `serving.json` names; ours where there is no such file."""
    path = folder / SERVING_FILE
    said = read_json(path).get("reader") if path.is_file() else READER
    reader: Reader = _named(path, "reader", said)
    return reader


def _named(file: Path, what: str, said: Any) -> Any:
    if not isinstance(said, str) or said.count(":") != 1:
        msg = f"{file}: expected \"{what}\" as 'module:Class', found {said!r}"
        raise DataError(msg)
    module, _, name = said.partition(":")
    try:
        loader = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        msg = f"{file}: the {what} {said!r} cannot be imported ({error}); install its requirements"
        raise DataError(msg) from error
    return loader.load(file.parent)


def encode_png(image: Image) -> bytes:
    """A uint8 image (height, width, 3) as PNG bytes."""
    from PIL import Image as Pillow

    buffer = io.BytesIO()
    Pillow.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()


class Predictor:
    """A loaded model that answers rows of (image, prompt)."""

    def __init__(self, segmenter: Segmenter, reader: Reader) -> None:
        self._segmenter, self._reader = segmenter, reader

    @classmethod
    def load(cls, folder: Path) -> Predictor:
        """The model of a candidate folder, or of the data folder of a registered version."""
        return cls(load_engine(folder), load_reader(folder))

    def predict(
        self, model_input: pd.DataFrame | dict[str, Any] | list[Row], params: Mapping[str, Any] | None = None
    ) -> list[Row]:
        """Answer every row; rows with the same image share one reading of it and one pass over it."""
        form = check_form(str((params or {}).get("masks") or "rle"))
        rows = rows_of(model_input)
        images = [resolved(row["image"]) for row in rows]
        groups: dict[Any, list[int]] = {}
        for number, image in enumerate(images):
            groups.setdefault(identity(image), []).append(number)
        answers: list[Row] = [{} for _ in rows]
        for numbers in groups.values():
            scene, results = self.segment(images[numbers[0]], [rows[number]["prompt"] for number in numbers], params)
            for number, result in zip(numbers, results, strict=True):
                answers[number] = answer_row(result, scene, form)
        return answers

    def segment(
        self, image: Any, prompts: list[str], params: Mapping[str, Any] | None = None
    ) -> tuple[Any, list[dict[str, Any]]]:
        """What was read, and a result a prompt with masks as bool arrays of the original grid (`scene.shape`)."""
        scene = self._reader.read(resolved(image), params)
        if scene.axes == "yx":
            return scene, self._segmenter.segment(scene.pixels, prompts)
        return scene, [_on_original(found, scene) for found in self._volume(scene.pixels, prompts)]

    def _volume(self, pixels: Image, prompts: list[str]) -> list[dict[str, Any]]:
        """Results of a volume (slices, rows, columns[, 3]): by the engine's own way, else slice by slice."""
        own = getattr(self._segmenter, "segment_volume", None)
        if own is not None:
            found: list[dict[str, Any]] = own(pixels, prompts)
            return found
        planes = [self._segmenter.segment(coloured(plane), prompts) for plane in pixels]
        return [
            {
                "prompt": prompt,
                "score": max(float(plane[number]["score"]) for plane in planes),
                "mask": np.stack([plane[number]["mask"] for plane in planes]),
            }
            for number, prompt in enumerate(prompts)
        ]


def _on_original(found: dict[str, Any], scene: Scene) -> dict[str, Any]:
    """A volume's result with its masks on the original grid; a track is an instance."""
    return {
        "prompt": found["prompt"],
        "score": found["score"],
        "mask": scene.back(np.asarray(found["mask"], dtype=bool)),
        "instances": [
            {"score": track["score"], "mask": scene.back(np.asarray(track["mask"], dtype=bool))}
            for track in found.get("tracks", ())
        ],
    }


def coloured(plane: Image) -> Image:
    """Grey (height, width) as (height, width, 3), which is what engines take; colours as they are."""
    return np.repeat(plane[:, :, None], 3, axis=2) if plane.ndim == 2 else plane


def _load_pyfunc(data_path: str) -> Predictor:
    """MLflow's entry point: `data_path` is the candidate folder inside the model."""
    return Predictor.load(Path(data_path))
