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
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from infra.errors import DataError
from infra.storage import read_json, sha256_file, write_json, write_text
from registry.environment import no_progress_bars
from registry.predictor import READER, SERVING_FILE, Predictor, encode_png

Example = tuple[NDArray[np.uint8], list[str]]

# What serving needs, with the versions installed here, which are those of requirements.lock. Never inferred: that
# costs 10 s and takes what happens to be imported for what is needed.
_REQUIREMENTS = (
    # MLflow, the engine
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
    # the readers of pictures and volumes
    "SimpleITK",
    "pydicom",
    "highdicom",
    "pylibjpeg-openjpeg",
    "tifffile",
    "imagecodecs",
    "PyYAML",
)
# Big, and of no use to serve.
_NOT_SERVED = ("start.safetensors", "history.jsonl")
_SKIPPED = shutil.ignore_patterns("__pycache__", "*.pyc")
# What reads files of users; what makes datasets stays behind.
_NOT_READ = shutil.ignore_patterns("__pycache__", "*.pyc", "datasets", "phantoms", "export", "steps", "templates")
WEIGHTS = "model.safetensors"
_NO_ARTIFACT = "No such artifact"  # MLflow puts together what failed into one text
_OF_REGISTRY = ("__init__.py", "predictor.py", "reading.py", "answers.py")


def requirements() -> list[str]:
    """The pinned requirements of a served model; a local version (`+cpu`) is cut, as no index has it."""
    return [f"{name}=={_installed(name)}" for name in _REQUIREMENTS]


def constraints() -> list[str]:
    """Pins for all that the requirements need in turn, as it is installed here: pip's constraints.

    Without them an environment made in a year has the same direct packages on others that nobody tried. What only
    another build of torch (CUDA) needs is not installed here, and so not pinned.
    """
    known: dict[str, str] = {}
    waiting = [Requirement(name) for name in _REQUIREMENTS]
    seen: set[tuple[str, tuple[str, ...]]] = set()
    while waiting:
        wanted = waiting.pop()
        name, extras = canonicalize_name(wanted.name), tuple(sorted(wanted.extras))
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            found = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        known[name] = found.version.partition("+")[0]
        for line in found.requires or ():
            needed = Requirement(line)
            if needed.marker is None or any(needed.marker.evaluate({"extra": one}) for one in ("", *extras)):
                waiting.append(needed)
    return [f"{name}=={version}" for name, version in sorted(known.items())]


def save_pyfunc(
    candidate: Path,
    target: Path,
    work: Path,
    *,
    example: Example,
    metadata: dict[str, Any],
    serving: dict[str, Any] | None = None,
) -> Any:
    """Write the MLflow model folder of a candidate to `target`; return MLflow's `Model`.

    `work` is an empty folder for what is staged. `serving` says how the training data was read: `orientation` and
    `datasets` of `preprocessing.serving`. The candidate is loaded and asked once, so that what cannot serve is never
    registered.
    """
    from mlflow.models import Model
    from mlflow.pyfunc import save_model

    _ask_once(candidate, example)
    data = stage_data(candidate, work / "candidate")
    write_json(data / SERVING_FILE, {**(serving or {}), "reader": READER})
    write_text(work / "constraints.txt", "\n".join(constraints()) + "\n")
    model = Model(metadata=metadata)
    save_model(
        path=target,
        loader_module="registry.predictor",
        data_path=str(data),
        code_paths=[str(path) for path in stage_code(candidate, work / "code")],
        signature=signature(),
        input_example=example_frame(example),
        pip_requirements=[*requirements(), f"-c {work / 'constraints.txt'}"],
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
    """The packages that serve the candidate, copied to `target`: the engine's own, the reader's and what ours need."""
    engine: str = read_json(candidate / "config.json")["engine"]
    package, reader = (name.partition(":")[0].partition(".")[0] for name in (engine, READER))
    for name in sorted({package, "infra"}):
        shutil.copytree(_package_folder(name), target / name, ignore=_SKIPPED)
    shutil.copytree(_package_folder(reader), target / reader, ignore=_NOT_READ)
    registry = _package_folder("registry")
    (target / "registry").mkdir()
    for name in _OF_REGISTRY:
        shutil.copyfile(registry / name, target / "registry" / name)
    return sorted(path for path in target.iterdir() if path.is_dir())


def signature() -> Any:
    """Columns `image` (any form) and `prompt` to the columns of an answer; `registry.predictor` says what they are."""
    from mlflow.models import ModelSignature
    from mlflow.types.schema import (
        AnyType,
        Array,
        ColSpec,
        DataType,
        Object,
        ParamSchema,
        ParamSpec,
        Property,
        Schema,
    )

    rle = Object([Property("size", Array(DataType.long)), Property("counts", DataType.string)])
    slices = Array(Object([Property("index", DataType.long), Property("rle", rle)]))
    instance = Object(
        [
            Property("score", DataType.double),
            Property("bbox_xyxy", Array(DataType.double), required=False),
            Property("bbox_xyzxyz", Array(DataType.long), required=False),
            Property("rle", rle, required=False),
            Property("slices", slices, required=False),
            Property("file", DataType.string, required=False),
        ]
    )
    said = {name: ColSpec(DataType.string, name) for name in ("prompt", "kind", "axes")}
    return ModelSignature(
        inputs=Schema([ColSpec(AnyType(), "image"), ColSpec(DataType.string, "prompt")]),
        outputs=Schema(
            [
                said["prompt"],
                ColSpec(DataType.double, "score"),
                said["kind"],
                said["axes"],
                ColSpec(Array(DataType.long), "size"),
                ColSpec(rle, "rle", required=False),
                ColSpec(slices, "slices", required=False),
                ColSpec(DataType.string, "file", required=False),
                ColSpec(AnyType(), "mask", required=False),
                ColSpec(Array(instance), "instances"),
                ColSpec(AnyType(), "intensity"),
                ColSpec(AnyType(), "geometry", required=False),
            ]
        ),
        params=ParamSchema(
            [
                ParamSpec("masks", DataType.string, "rle"),
                ParamSpec("intensity", DataType.string, "auto"),
                ParamSpec("like", DataType.string, ""),
                ParamSpec("axis", DataType.string, "auto"),
                ParamSpec("frame", DataType.long, -1),
            ]
        ),
    )


def example_frame(example: Example) -> Any:
    """The example as the DataFrame that a caller would send: the image as PNG in base64, a row per prompt."""
    import pandas as pd

    image, prompts = example
    picture = base64.b64encode(encode_png(image)).decode("ascii")
    return pd.DataFrame({"image": [picture] * len(prompts), "prompt": list(prompts)})


def fetch_model(store: Any, version: Any, target: Path) -> Path:
    """Bring the files of a registered version (`registry.store.ModelVersion`) to `target`; return its data folder.

    DataError where the weights are gone, or are not those that were registered.
    """
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    source = store.client.get_model_version_download_uri(version.name, str(version.version))
    try:
        with no_progress_bars():
            folder = Path(
                download_artifacts(artifact_uri=source, dst_path=str(target), tracking_uri=store.tracking_uri)
            )
    except MlflowException as error:
        # of a folder that is gone; a server that does not answer is for the caller to try again
        if _NO_ARTIFACT not in str(error) and error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise _gone(version, "the model folder", source) from error
    data = data_folder(folder)
    if not (data / WEIGHTS).is_file():
        raise _gone(version, WEIGHTS, source)
    found = sha256_file(data / WEIGHTS)
    if found != version.weights_sha256:
        msg = (
            f"{version.name} version {version.version}: expected weights {version.weights_sha256[:12]}, as registered, "
            f"found {found[:12]} in {source}: the files were changed or damaged. Register the model again"
        )
        raise DataError(msg)
    return data


def _gone(version: Any, what: str, source: str) -> DataError:
    return DataError(
        f"{version.name} version {version.version}: expected {what} in {source}, as registered, found none: it was "
        "removed from MLflow's artifacts. Bring it back from a backup, or take another version (segfoundry model "
        f"list); how to build it again: segfoundry audit model {version.name}/{version.version}"
    )


def data_folder(folder: Path) -> Path:
    """Where the weights lie in an MLflow model folder; a folder without an MLmodel is itself one of weights."""
    if not (folder / "MLmodel").is_file():
        return folder
    from mlflow.models import Model

    return folder / str(Model.load(str(folder)).flavors["python_function"]["data"])


def _ask_once(candidate: Path, example: Example) -> None:
    image, prompts = example
    answers = Predictor.load(candidate).predict({"image": image, "prompt": list(prompts)})
    expected = [int(size) for size in image.shape[:2]]
    for answer in answers:
        if answer["size"] != expected or answer["rle"]["size"] != expected:
            msg = f"{candidate}: expected masks of size {expected}, found {answer['size']}; the engine is broken"
            raise DataError(msg)


def _installed(name: str) -> str:
    return importlib.metadata.version(name).partition("+")[0]


def _package_folder(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        msg = f"the package {name!r} that serves the model cannot be found; install it beside segfoundry"
        raise DataError(msg)
    return Path(next(iter(spec.submodule_search_locations)))
