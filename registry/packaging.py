"""The model folder that MLflow keeps: safetensors, the code that serves them, fixed requirements."""

from __future__ import annotations

import base64
import importlib.metadata
import importlib.util
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.errors import DataError
from infra.storage import read_json
from registry.predictor import Predictor, encode_png, load_engine

Example = tuple[NDArray[np.uint8], list[str]]

# What serving needs, with the versions installed here. Never inferred: that costs 10 s and takes what
# happens to be imported for what is needed.
_REQUIREMENTS = (
    "mlflow",
    "numpy",
    "pandas",
    "Pillow",
    "pyarrow",
    "safetensors",
    "torch",
    "transformers",
    "ftfy",
    "regex",
)
# Big, and of no use to serve.
_NOT_SERVED = ("start.safetensors", "history.jsonl")
_SKIPPED = shutil.ignore_patterns("__pycache__", "*.pyc")


def requirements() -> list[str]:
    """The pinned requirements of a served model; a local version (`+cpu`) is cut, as no index has it."""
    return [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in _REQUIREMENTS]


def save_pyfunc(candidate: Path, target: Path, work: Path, *, example: Example, metadata: dict[str, Any]) -> Any:
    """Write the MLflow model folder of a candidate to `target`; return MLflow's `Model`.

    `work` is an empty folder for what is staged. The candidate is loaded and asked once, so that what cannot
    serve is never registered.
    """
    from mlflow.models import Model
    from mlflow.pyfunc import save_model

    _ask_once(candidate, example)
    data = stage_data(candidate, work / "candidate")
    model = Model(metadata=metadata)
    save_model(
        path=target,
        loader_module="registry.predictor",
        data_path=str(data),
        code_paths=[str(path) for path in stage_code(candidate, work / "code")],
        signature=signature(),
        input_example=example_frame(example),
        pip_requirements=requirements(),
        mlflow_model=model,
    )
    return model


def stage_data(candidate: Path, target: Path) -> Path:
    """The files of a candidate that serving needs, linked or copied to `target`."""
    for name in ("config.json", "model.safetensors"):
        if not (candidate / name).is_file():
            msg = f"{candidate}: expected {name}, found none; run the training stage again"
            raise DataError(msg)
    target.mkdir(parents=True)
    for entry in sorted(candidate.iterdir()):
        if entry.name in _NOT_SERVED or entry.name.startswith("."):
            continue
        if entry.is_dir():
            shutil.copytree(entry, target / entry.name, ignore=_SKIPPED)
        else:
            shutil.copyfile(entry, target / entry.name)
    return target


def stage_code(candidate: Path, target: Path) -> list[Path]:
    """The packages that serve the candidate, copied to `target`: the engine's own and what ours need."""
    engine: str = read_json(candidate / "config.json")["engine"]
    package = engine.partition(":")[0].partition(".")[0]
    for name in sorted({package, "infra"}):
        shutil.copytree(_package_folder(name), target / name, ignore=_SKIPPED)
    preprocessing, registry = _package_folder("preprocessing"), _package_folder("registry")
    shutil.copytree(preprocessing / "schema", target / "preprocessing" / "schema", ignore=_SKIPPED)
    shutil.copyfile(preprocessing / "__init__.py", target / "preprocessing" / "__init__.py")
    (target / "registry").mkdir()
    for name in ("__init__.py", "predictor.py"):
        shutil.copyfile(registry / name, target / "registry" / name)
    return sorted(path for path in target.iterdir() if path.is_dir())


def signature() -> Any:
    """Columns `image` (bytes, base64 or path: any) and `prompt` (string) to score, RLE and instances."""
    from mlflow.models import ModelSignature
    from mlflow.types.schema import AnyType, Array, ColSpec, DataType, Object, Property, Schema

    mask = Object([Property("size", Array(DataType.long)), Property("counts", DataType.string)])
    instance = Object(
        [
            Property("score", DataType.double),
            Property("bbox_xyxy", Array(DataType.double)),
            Property("rle", mask),
        ]
    )
    return ModelSignature(
        inputs=Schema([ColSpec(AnyType(), "image"), ColSpec(DataType.string, "prompt")]),
        outputs=Schema(
            [
                ColSpec(DataType.string, "prompt"),
                ColSpec(DataType.double, "score"),
                ColSpec(mask, "rle"),
                ColSpec(Array(instance), "instances"),
            ]
        ),
    )


def example_frame(example: Example) -> Any:
    """The example as the DataFrame that a caller would send: the image as PNG in base64, a row per prompt."""
    import pandas as pd

    image, prompts = example
    picture = base64.b64encode(encode_png(image)).decode("ascii")
    return pd.DataFrame({"image": [picture] * len(prompts), "prompt": list(prompts)})


def _ask_once(candidate: Path, example: Example) -> None:
    image, prompts = example
    answers = Predictor(load_engine(candidate)).predict({"image": image, "prompt": list(prompts)})
    expected = [int(size) for size in image.shape[:2]]
    for answer in answers:
        if answer["rle"]["size"] != expected:
            msg = f"{candidate}: expected masks of size {expected}, found {answer['rle']['size']}; the engine is broken"
            raise DataError(msg)


def _package_folder(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        msg = f"the package {name!r} that serves the model cannot be found; install it beside segfoundry"
        raise DataError(msg)
    return Path(next(iter(spec.submodule_search_locations)))
