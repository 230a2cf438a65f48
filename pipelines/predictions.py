"""Masks of users' own files by a model: a file of masks each, in the input's own kind, and one JSON of all."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from infra.errors import UsageError
from infra.storage import read_json, sha256_file, staged_folder, write_json
from pipelines import events
from pipelines.workspace import MODEL_NAME
from registry.answers import answer_row
from registry.packaging import data_folder, fetch_model
from registry.predictor import Predictor
from registry.store import RegistryStore

Document = dict[str, Any]

INDEX_FILE = "predictions.json"
_ADDRESS = re.compile(r"(?:models:/)?(?:(?P<name>[A-Za-z0-9][\w.-]*)[@/])?(?P<which>v?\d+|[A-Za-z][\w-]*)")


@contextmanager
def opened(address: str, store: RegistryStore | None) -> Iterator[tuple[Predictor, Document]]:
    """The model of an address, for the block, and what is to be said about it.

    An address is a version or alias ("champion", "3"), "NAME@ALIAS", "NAME/VERSION", the same after "models:/", or a
    folder: a candidate, or an MLflow model. Without a store only a folder will do. The code is this checkout's.
    """
    if Path(address).is_dir():
        folder = data_folder(Path(address))
        if not (folder / "config.json").is_file():
            msg = f"{address}: expected a model folder (config.json or MLmodel), found neither"
            raise UsageError(msg)
        digest = sha256_file(folder / "model.safetensors")
        yield Predictor.load(folder), {"name": Path(address).name, "version": None, "weights_sha256": digest}
        return
    match = _ADDRESS.fullmatch(address)
    if match is None or store is None:
        msg = f"model: expected a version, an alias, NAME@ALIAS, models:/NAME/VERSION or a folder, found {address!r}"
        raise UsageError(msg)
    version = store.resolve(match["name"] or MODEL_NAME, match["which"])
    with tempfile.TemporaryDirectory(prefix="segfoundry-model-") as spare:
        folder = fetch_model(store, version, Path(spare))
        said = {"name": version.name, "version": version.version, "weights_sha256": version.weights_sha256}
        yield Predictor.load(folder), said


def predict_files(
    predictor: Predictor,
    model: Document,
    files: Sequence[Path],
    prompts: Sequence[str],
    target: Path,
    *,
    params: Document | None = None,
    dicom_seg: bool = False,
) -> Document:
    """Write the masks of every file into the new folder `target`; return what `predictions.json` there says.

    A picture gives PNGs of 0 and 255, a volume NIfTIs on its original grid, in a folder of its own; with
    `dicom_seg` a DICOM series also `segmentation.dcm`. A file that cannot be read ends the whole, and nothing stays.
    """
    _check(files, prompts)
    said = []
    with staged_folder(target) as staging:
        for number, (file, name) in enumerate(zip(files, _names(files), strict=True), start=1):
            events.emit("progress", stage="predict", done=number - 1, total=len(files))
            scene, results = predictor.segment(file, list(prompts), params)
            (staging / name).mkdir()
            answers = []
            for place, result in enumerate(results, start=1):
                path = Path(name) / f"{place:02d}_{_plain(result['prompt'])}{scene.ending}"
                scene.write(np.asarray(result["mask"], dtype=bool), staging / path)
                answers.append(_said(result, scene, path))
            entry = {
                "file": str(file),
                "kind": "picture" if scene.axes == "yx" else "volume",
                "axes": scene.axes,
                "size": list(scene.shape),
                "geometry": scene.geometry,
                "intensity": scene.intensity,
                "prompts": answers,
            }
            if dicom_seg and scene.files:
                masks = {result["prompt"]: np.asarray(result["mask"], dtype=bool) for result in results}
                path = Path(name) / "segmentation.dcm"
                scene.write_dicom_seg(masks, model["name"], str(model["version"] or ""), staging / path)
                entry["dicom_seg"] = str(path)
            said.append(entry)
        document = {"model": model, "parameters": params or {}, "files": said}
        write_json(staging / INDEX_FILE, document)
    written: Document = read_json(target / INDEX_FILE)
    return written


def _said(result: Document, scene: Any, path: Path) -> Document:
    """Scores and boxes of one prompt, and where its mask lies."""
    row = answer_row(result, scene, "array")
    marked = int(np.count_nonzero(result["mask"]))
    geometry = scene.geometry
    volume = {} if geometry is None else {"millilitres": marked * float(np.prod(geometry["spacing_mm_xyz"])) / 1000}
    return {
        "prompt": row["prompt"],
        "score": row["score"],
        "mask": str(path),
        "pixels" if scene.axes == "yx" else "voxels": marked,
        **volume,
        "instances": [{key: one[key] for key in one if key != "mask"} for one in row["instances"]],
    }


def _check(files: Sequence[Path], prompts: Sequence[str]) -> None:
    if not prompts or any(not prompt.strip() for prompt in prompts):
        msg = 'expected at least one prompt of words, found none. Say: --prompt "left kidney"'
        raise UsageError(msg)
    missing = [str(file) for file in files if not file.exists()]
    if missing or not files:
        msg = f"expected files or folders that exist, found none at {', '.join(missing) or 'no path'}"
        raise UsageError(msg)


def _names(files: Sequence[Path]) -> list[str]:
    """A folder name for each file: its own without the ending, numbered where several have the same."""
    stems = [re.sub(r"(\.nii)?(\.gz)?$", "", file.name) if ".nii" in file.name else file.stem for file in files]
    often = Counter(stems)
    return [stem if often[stem] == 1 else f"{number:03d}_{stem}" for number, stem in enumerate(stems, start=1)]


def _plain(prompt: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", prompt.lower()).strip("_")[:60] or "prompt"
