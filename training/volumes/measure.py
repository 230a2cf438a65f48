"""Ways of segmenting whole volumes for text, measured against one another without anybody pointing at a slice.

    python -m training.volumes.measure --data DATA --model FOLDER --context FOLDER --out docs/volumes-3d.md

`--model` is a model of single slices, with a tracker beside it (`training.volumes.fit_tracker`); `--context` one that
was trained on neighbouring slices (recipe field `neighbours`). Ways with settings take those that do best on the
validation volumes of the datasets that were trained on; test volumes are only measured.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from infra.errors import SegfoundryError, UsageError
from infra.storage import read_json, write_json, write_text
from preprocessing import schema
from training.predict import Segmenter
from training.volumes.cases import Volume, volumes_of
from training.volumes.consistency import Consistency, consistent
from training.volumes.evidence import Evidence, Mask, gather, plain
from training.volumes.follow import Following, follow, slice_features, track_object
from training.volumes.page import page
from training.volumes.pictures import write_pictures
from training.volumes.score import VolumeScore, mean_over_datasets, score_volume
from training.volumes.tracker import VolumeTracker

Settings = Consistency | Following | None

CONSISTENCIES = [
    *(Consistency(window, shortest=1, strong=0.0) for window in (0, 1, 2)),
    *(
        Consistency(window, shortest=shortest, strong=strong)
        for window, shortest, strong in itertools.product((0, 1, 2), (3, 6), (0.8, 0.95))
    ),
]
FOLLOWINGS = [Following(tracks, 1, gate) for tracks, gate in itertools.product((1, 3), (0.0, 0.5, 1.0))]
WAYS: dict[str, list[Any]] = {
    "slices": [None],
    "slices, consistent": list(CONSISTENCIES),
    "2.5D": [None],
    "2.5D, consistent": list(CONSISTENCIES),
    "tracker": list(FOLLOWINGS),
}
"""Each way and the settings that are tried for it on validation volumes."""
BASE = "slices"


@dataclass
class Seen:
    """A volume and all that the models say of it."""

    volume: Volume
    evidence: dict[str, dict[str, Evidence]]  # "slices" or "2.5D" -> concept -> evidence
    seconds: dict[str, float]  # to gather it; "tracker": to compute its features
    features: list[dict[str, Any]]
    tracked: dict[tuple[str, int, bytes], tuple[NDArray[np.float32], float]] = field(default_factory=dict)


@dataclass
class Models:
    """What is compared."""

    slices: Segmenter
    context: Segmenter
    tracker: VolumeTracker


def look(models: Models, volume: Volume) -> Seen:
    """Ask the models for every concept that the volume's slices name."""
    concepts = sorted(volume.truth)
    evidence, seconds = {}, {}
    for name, segmenter in (("slices", models.slices), ("2.5D", models.context)):
        began = time.perf_counter()
        evidence[name] = dict(zip(concepts, gather(segmenter, volume.pixels, concepts, volume.indices), strict=True))
        seconds[name] = time.perf_counter() - began
    began = time.perf_counter()
    features = slice_features(models.slices, models.tracker, volume.pixels, volume.indices)
    seconds["tracker"] = time.perf_counter() - began
    return Seen(volume, evidence, seconds, features)


def answer(way: str, settings: Settings, seen: Seen, models: Models) -> tuple[dict[str, Mask], float]:
    """Masks (slices, height, width) by concept, and the seconds that the way takes with all that it needs."""
    source = "2.5D" if way.startswith("2.5D") else "slices"
    decision = (models.context if source == "2.5D" else models.slices).decision
    height, width = seen.volume.pixels[0].shape[:2]
    answers: dict[str, Mask] = {}
    began, saved = time.perf_counter(), 0.0
    for concept, evidence in seen.evidence[source].items():
        if isinstance(settings, Consistency):
            answers[concept] = consistent(evidence, height, width, decision, settings)[0] > 0
        elif isinstance(settings, Following):
            track, spent = _remembering(concept, seen, models)
            answers[concept] = follow(track, evidence, height, width, decision, settings)[0] > 0
            saved += spent[0]
        else:
            answers[concept] = plain(evidence, height, width, decision)
    seconds = time.perf_counter() - began + saved + seen.seconds[source]
    return answers, seconds + (seen.seconds["tracker"] if isinstance(settings, Following) else 0.0)


def _remembering(
    concept: str, seen: Seen, models: Models
) -> tuple[Callable[[int, Mask], NDArray[np.float32]], list[float]]:
    """`track_object` that tracks nothing twice, and the seconds that it saved by that, as a list of one."""
    saved = [0.0]

    def track(start: int, mask: Mask) -> NDArray[np.float32]:
        key = (concept, start, np.packbits(mask).tobytes())
        if key in seen.tracked:
            saved[0] += seen.tracked[key][1]
        else:
            began = time.perf_counter()
            logits = track_object(models.tracker, seen.features, start, mask)
            seen.tracked[key] = (logits, time.perf_counter() - began)
        return seen.tracked[key][0]

    return track, saved


def scores_of(way: str, settings: Settings, volumes: Iterable[Seen], models: Models) -> list[VolumeScore]:
    """One score a volume."""
    return [score_volume(seen.volume, *answer(way, settings, seen, models)) for seen in volumes]


def choose(volumes: Sequence[Seen], models: Models) -> dict[str, Settings]:
    """Of each way the settings with the best Dice, mean over datasets; of equals the first."""
    chosen: dict[str, Settings] = {}
    for way, tried in WAYS.items():
        if len(tried) == 1:
            chosen[way] = tried[0]
            continue
        worth = [mean_over_datasets(scores_of(way, settings, volumes, models)) for settings in tried]
        chosen[way] = tried[int(np.argmax(worth))]
    return chosen


def looked(models: Models, data_root: Path, datasets: list[str], split: str, most: int) -> list[Seen]:
    """All volumes of a split, seen by the models."""
    return [look(models, volume) for name in datasets for volume in volumes_of(data_root, name, split, most=most)]


def _answers(
    volumes: Sequence[Seen], chosen: dict[str, Settings], models: Models
) -> Callable[[str, int], dict[str, Mask]]:
    def masks(way: str, number: int) -> dict[str, Mask]:
        return answer(way, chosen[way], volumes[number], models)[0]

    return masks


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m training.volumes.measure", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of dataset versions")
    parser.add_argument("--model", type=Path, required=True, help="model folder: single slices, and a tracker")
    parser.add_argument("--context", type=Path, required=True, help="model folder: with neighbouring slices")
    parser.add_argument("--datasets", nargs="*", default=[], help="default: those that --model was given")
    parser.add_argument("--split", nargs="+", choices=("val", "test"), default=["val", "test"])
    parser.add_argument("--most", type=int, default=0, help="volumes of a dataset, at most; 0: all")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pictures", type=Path, help="folder for a picture of a volume of each dataset")
    parser.add_argument("--figures", type=Path, help="JSON file for the scores of every volume")
    parser.add_argument("--out", type=Path, required=True, help="Markdown page")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(asked.threads)
    try:
        slices = Segmenter.load(asked.model)
        models = Models(slices, Segmenter.load(asked.context), VolumeTracker.load(asked.model, slices.model.config))
        if slices.neighbours or not models.context.neighbours:
            msg = (
                f"--model {asked.model}, --context {asked.context}: expected a model of single slices and one with "
                f"neighbours, found neighbours {slices.neighbours} and {models.context.neighbours}"
            )
            raise UsageError(msg)
        names = asked.datasets or sorted(read_json(asked.model / "train.json")["datasets"])
        trained = [name for name in names if schema.read_dataset_file(asked.data / name)["splits"].get("train")]
        seen = {"val": looked(models, asked.data, names, "val", asked.most)}
        chosen = choose([each for each in seen["val"] if each.volume.dataset in trained], models)
        if "test" in asked.split:
            seen["test"] = looked(models, asked.data, names, "test", asked.most)
        found = {
            split: {way: scores_of(way, settings, seen[split], models) for way, settings in chosen.items()}
            for split in asked.split
        }
        if asked.pictures:
            for split in asked.split:
                drawn = [each.volume for each in seen[split]]
                write_pictures(asked.pictures, split, drawn, list(chosen), _answers(seen[split], chosen, models))
    except SegfoundryError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    records = {
        name: read_json(folder / "train.json") for name, folder in (("slices", asked.model), ("2.5D", asked.context))
    }
    text = page(found, chosen, trained, records, read_json(asked.model / "tracker.json"), BASE, asked.threads)
    write_text(asked.out, text)
    if asked.figures:
        write_json(
            asked.figures,
            {
                split: {way: [vars(score) for score in scores] for way, scores in ways.items()}
                for split, ways in found.items()
            },
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
