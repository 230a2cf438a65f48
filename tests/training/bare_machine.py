"""What a GPU machine does that has the training core's six packages alone: `python -m tests.training.bare_machine`.

    FOLDER [--hide]     FOLDER/tokenizer holds CLIP's merges; --hide makes everything else that is installed here
                        invisible: for imports and for importlib.metadata

It trains from shards, is interrupted, resumes, leaves the model folder, evaluates and serves it, starts from it, and
runs the benchmark. In a real environment of its own:

    pip install torch lightning transformers pyarrow numpy Pillow && python -m tests.training.bare_machine FOLDER
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.machinery
import importlib.metadata
import importlib.util
import io
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "lightning", "transformers", "pyarrow", "numpy", "Pillow")
OURS = ("training", "infra", "preprocessing", "tests")
ABSENT = ("ray", "mlflow", "prefect", "dvc", "SimpleITK", "imagecodecs", "ftfy", "open_clip", "scipy", "pandas")
NAMES = ["Alpha", "Beta"]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def closure(names: tuple[str, ...]) -> set[str]:
    """The distributions that pip would install for these, by normal name."""
    from packaging.requirements import Requirement

    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = _normal(waiting.pop())
        if name in found:
            continue
        try:
            requires = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # of CUDA builds
        found.add(name)
        for requirement in map(Requirement, requires):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
    return found


class Only:
    """A finder that sees these modules and these distributions and nothing else."""

    def __init__(self, modules: set[str], distributions: set[str]) -> None:
        self.modules, self.distributions = modules, distributions

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        top = name.partition(".")[0]
        if top not in self.modules and not top.startswith("_sysconfigdata"):  # the interpreter's own, named by platform
            return None
        return importlib.machinery.PathFinder.find_spec(name, path, target)

    def find_distributions(self, context: Any = None) -> Iterator[Any]:
        context = context or importlib.metadata.DistributionFinder.Context()
        for found in importlib.metadata.MetadataPathFinder.find_distributions(context):
            if _normal(found.metadata["Name"]) in self.distributions:
                yield found


def hide() -> None:
    """Leave the six packages, what they require, and our own code."""
    distributions = closure(PACKAGES)
    owners = importlib.metadata.packages_distributions()
    modules = {name for name, found in owners.items() if distributions & set(map(_normal, found))}
    modules |= set(sys.stdlib_module_names) | set(OURS)
    builtin = [importlib.machinery.BuiltinImporter, importlib.machinery.FrozenImporter]
    sys.meta_path[:] = [*builtin, Only(modules, distributions)]  # type: ignore[list-item]
    importlib.invalidate_caches()


class Interrupted(Exception):
    pass


def interrupted_after(step: int) -> type[Any]:
    from training.module import Sam3Training

    class Stops(Sam3Training):
        def on_train_batch_end(self, outputs: Any, batch: Any, batch_index: int) -> None:
            super().on_train_batch_end(outputs, batch, batch_index)
            if self.global_step == step:
                raise Interrupted

    return Stops


def main(folder: Path) -> None:
    import numpy as np

    from tests.training.made import write_dataset
    from training import alone
    from training.bench import __main__ as bench_main
    from training.measure import run_evaluation
    from training.module import Sam3Training
    from training.predict import Segmenter

    data, run_dir, out = folder / "data", folder / "run", folder / "candidate"
    for number, name in enumerate(NAMES):
        write_dataset(data, name, 6, first=50 * number, splits=("train", "train", "val"))
    overrides = {"global_batch": 4, "checkpoint_every": 2}
    params = {"recipe": "tiny", "steps": 5, "overrides": overrides}
    arguments = [f"--data={data}", f"--run-dir={run_dir}", f"--out={out}", f"--tokenizer={folder / 'tokenizer'}"]
    arguments.append(f"--params={json.dumps(params)}")

    alone.Sam3Training = interrupted_after(3)  # type: ignore[misc]
    with contextlib.suppress(Interrupted):
        alone.main(arguments)
        raise AssertionError
    alone.Sam3Training = Sam3Training  # type: ignore[misc]
    (checkpoint,) = run_dir.glob("checkpoints/*/step-00000002.json")
    assert not out.exists()
    assert alone.main(arguments) == 0
    assert not checkpoint.exists(), "a finished run needs no checkpoint"
    (history,) = map(json.loads, (out / "history.jsonl").read_text().splitlines())
    assert history["step"] == 5

    evaluation = run_evaluation(
        data_root=data,
        datasets=NAMES,
        candidate=out,
        out=folder / "evaluation",
        params={"split": "val", "max_samples_per_dataset": 0},
    )
    assert set(evaluation["datasets"]) == set(NAMES)
    (answer,) = Segmenter.load(out).segment(np.zeros((40, 50, 3), dtype=np.uint8), ["bright disc"])
    assert answer["mask"].shape == (40, 50)

    # the words come with the model folder that a run starts from, where nothing names a tokenizer
    again = [*arguments[:3], f"--start={out}", f"--params={json.dumps({**params, 'steps': 1})}"]
    again[2] = f"--out={folder / 'again'}"
    assert alone.main(again) == 0

    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        assert bench_main.main(["--model-size=tiny", "--batch=1", "--prompts=2", "--steps=1", "--repetitions=1"]) == 0
    assert json.loads(said.getvalue())
    for name in ABSENT:
        assert importlib.util.find_spec(name) is None, name


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--hide", action="store_true")
    given = parser.parse_args()
    if given.hide:
        hide()
    main(given.folder)
    print("bare machine: done")  # noqa: T201
