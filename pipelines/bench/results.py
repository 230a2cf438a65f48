"""`python -m pipelines.bench.results`: our recipe beside a U-Net for each dataset, in one run, for the same time.

Both are trained on the train split and asked on the test split, on the samples' own pixel grids. Thresholds come
from the validation split: ours one for all datasets, the U-Nets' one for each. The U-Nets share the seconds that
our whole training took, equally: 2 threads, one dataset after another.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.compute import ray_session
from infra.errors import SegfoundryError, UsageError
from infra.storage import write_json, write_text
from pipelines.bench import machine, results_page, vanilla
from preprocessing import schema

_PEER = Path(__file__).parent / "peers" / "unet.py"
_ASKED = ("val", "test")


def main() -> None:
    """Train both, ask both, write the page; exit code 2 with a message where it cannot run."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.bench.results", description=__doc__)
    parser.add_argument("--data-root", type=Path, required=True, help="folder of dataset versions, e.g. WORKSPACE/data")
    parser.add_argument("--datasets", nargs="*", help="default: all that have masks and may be trained on")
    parser.add_argument("--recipe", default="small")
    parser.add_argument("--steps", type=int, default=0, help="default: as the recipe says")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--peers", type=Path, default=Path(".venv-bench/bin/python"), help="interpreter of the peers")
    parser.add_argument("--split", choices=_ASKED, default="test", help="val while a recipe is being chosen")
    parser.add_argument("--without-peer", action="store_true", help="measure ours alone")
    parser.add_argument("--json", type=Path, help="where the figures go, too")
    parser.add_argument("--out", type=Path, help="Markdown file to write; default: none")
    options = parser.parse_args()
    try:
        figures = measure(options)
    except SegfoundryError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
    if options.json:
        write_json(options.json, figures)
    if options.out:
        write_text(options.out, results_page.markdown(figures) + vanilla.kept_section(options.out))
    else:
        sys.stdout.write(results_page.markdown(figures))


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All figures of one run."""
    inside, external = _datasets(options.data_root, options.datasets)
    figures: dict[str, Any] = {
        "machine": machine.describe(),
        "recipe": options.recipe,
        "seed": options.seed,
        "split": options.split,
    }
    with tempfile.TemporaryDirectory(prefix="sf-results-") as folder:
        scratch = Path(folder)
        figures |= _ours(options, inside, external, scratch)
        if not options.without_peer:
            if not options.peers.is_file():
                msg = f"{options.peers}: expected the peers' interpreter, found none. `make bench` sets it up"
                raise UsageError(msg)
            figures["machine"]["peers"] = machine.peer_versions(options.peers)
            figures |= _theirs(options, inside, figures["train_s"], figures["image_size"], scratch / "unet")
    return figures


def _datasets(root: Path, wanted: list[str] | None) -> tuple[list[str], list[str]]:
    """Names of what is trained on, and of external test sets; those without a sample are left out."""
    names = wanted or sorted(path.parent.name for path in root.glob(f"*/{schema.DATASET_FILE}"))
    records = {name: schema.read_dataset_file(root / name) for name in names}
    full = [name for name in names if records[name]["counts"]["objects"]]
    external = [name for name in full if records[name].get("evaluation_only")]
    return [name for name in full if name not in external], external


def _ours(options: argparse.Namespace, inside: list[str], external: list[str], scratch: Path) -> dict[str, Any]:
    from training.launch import run_evaluation, run_training

    train = {"recipe": options.recipe, "steps": options.steps, "seed": options.seed, "workers": options.workers}
    with ray_session(scratch):
        begun = time.monotonic()
        record = run_training(
            data_root=options.data_root,
            datasets=inside,
            out=scratch / "candidate",
            params=train,
            run_dir=scratch / "train",
            progress=_say,
        )
        took = time.monotonic() - begun
        evaluation = run_evaluation(
            data_root=options.data_root,
            datasets=[*inside, *external],
            candidate=scratch / "candidate",
            out=scratch / "evaluation",
            params={"split": options.split, "max_samples_per_dataset": 0},
        )
    return {
        "train_s": round(took, 1),
        "steps": record["steps"],
        "parameters": record["parameters"],
        "image_size": int(record["recipe"]["image_size"]),
        "trained_on": {name: _splits(options.data_root, name) for name in inside},
        "datasets": evaluation["datasets"],
        "summary": evaluation["summary"],
    }


def _say(progress: dict[str, Any]) -> None:
    if progress["step"] % 50 == 0:
        sys.stderr.write(f"{json.dumps(progress)}\n")


def _splits(root: Path, name: str) -> dict[str, int]:
    return {split: int(count) for split, count in schema.read_dataset_file(root / name)["splits"].items()}


def _theirs(options: argparse.Namespace, inside: list[str], train_s: float, size: int, scratch: Path) -> dict[str, Any]:
    """Dice of each dataset's U-Net on the asked split; datasets without a train or an asked sample have none."""
    asked: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for name in inside:
        if _splits(options.data_root, name).get("train") and _splits(options.data_root, name).get(options.split):
            asked[name] = _write_inputs(options.data_root, name, size, scratch / name)
    seconds = train_s / max(1, len(asked))
    command = [str(options.peers), str(_PEER), *(str(scratch / name) for name in asked)]
    subprocess.run([*command, "--seconds", str(seconds), "--seed", str(options.seed)], check=True)
    found = {}
    for name, rows in asked.items():
        concepts = json.loads((scratch / name / "concepts.json").read_text())
        maps = np.load(scratch / name / "probabilities.npy", mmap_mode="r")
        trained = json.loads((scratch / name / "trained.json").read_text())
        found[name] = {"dice": _judge(rows, concepts, maps, options.split), "steps": trained["steps"]}
    return {"unet": found, "unet_s": round(seconds, 1)}


def _rows(root: Path, name: str, split: str) -> Iterator[dict[str, Any]]:
    from training.prepared import rows_of, shards_of

    for shard in shards_of(root, name):
        yield from rows_of(shard, split)


def _write_inputs(root: Path, name: str, size: int, folder: Path) -> list[tuple[str, dict[str, Any]]]:
    """The arrays that `peers/unet.py` reads; returns the asked rows without their pixels, each with its split."""
    from training.evaluate import truth_of
    from training.prepared import coverage, decode_image

    folder.mkdir(parents=True)
    rows = list(_rows(root, name, "train"))
    concepts = sorted({item["concept"] for row in rows for item in row["objects"]})
    np.save(folder / "train_images.npy", np.stack([_rgb(decode_image(row["image"], size)) for row in rows]))
    maps = [[coverage(truth_of(row, concept), size) for concept in concepts] for row in rows]
    np.save(folder / "train_maps.npy", np.array(maps, dtype=np.uint8))
    said = [{*(item["concept"] for item in row["objects"]), *row["absent"]} for row in rows]
    np.save(folder / "train_known.npy", np.array([[concept in each for concept in concepts] for each in said]))
    asked, pictures = [], []
    for split in _ASKED:
        for row in _rows(root, name, split):
            pictures.append(_rgb(decode_image(row["image"], size)))
            asked.append((split, {**row, "image": b""}))
    np.save(folder / "asked_images.npy", np.stack(pictures))
    (folder / "concepts.json").write_text(json.dumps(concepts))
    return asked


def _rgb(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.broadcast_to(pixels, (*pixels.shape[:2], 3))


def _judge(
    rows: list[tuple[str, dict[str, Any]]], concepts: list[str], maps: NDArray[np.float16], split: str
) -> float | None:
    """Mean Dice over the present concepts of the asked split, at the threshold that is best on validation.

    A concept that no training sample has is one that a U-Net has no output for: it scores 0 there, as it does for
    anyone who misses it.
    """
    from training.decision import MASK_THRESHOLDS

    scores: dict[str, list[list[float]]] = {name: [] for name in _ASKED}
    for number, (part, row) in enumerate(rows):
        for concept in sorted({item["concept"] for item in row["objects"]}):
            scores[part].append(_dice(row, concept, concepts, maps[number], MASK_THRESHOLDS))
    if not scores[split]:
        return None
    chosen = scores["val"] or [[float(threshold == 0.5) for threshold in MASK_THRESHOLDS]]
    best = int(np.argmax(np.mean(chosen, axis=0)))
    return float(np.mean([each[best] for each in scores[split]]))


def _dice(
    row: dict[str, Any],
    concept: str,
    concepts: list[str],
    maps: NDArray[np.float16],
    thresholds: tuple[float, ...],
) -> list[float]:
    from training.evaluate import truth_of
    from training.metrics import dice_iou
    from training.predict import on_grid

    if concept not in concepts:
        return [0.0] * len(thresholds)
    grid = on_grid(maps[concepts.index(concept)], row["height"], row["width"])
    truth = truth_of(row, concept)
    return [dice_iou(truth, grid > threshold)[0] for threshold in thresholds]


if __name__ == "__main__":
    main()
