"""Two small datasets with copies of each other's pictures, as data versions of one workspace, and a model of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from infra import repository
from infra.storage import write_json
from pipelines.release import open_store
from pipelines.workspace import MODEL_NAME, Workspace
from preprocessing.schema import read_dataset_file
from registry.lineage import build_lineage
from registry.store import RegistryStore
from tests.pipelines.test_own_card import CARD, segfoundry
from tests.preprocessing.pictures import scan
from tests.registry import samples

OPEN, CLOSED = "MyPolyps", "ClosedPolyps"
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class World:
    """The workspace, its registry, and where the raw files are."""

    place: Workspace
    store: RegistryStore
    raw: Path


def write_raw(root: Path, pictures: dict[str, tuple[str, Pixels]]) -> None:
    """Name -> (split, pixels) as image and mask files."""
    for name, (split, pixels) in pictures.items():
        mask = np.zeros((*pixels.shape[:2], 3), np.uint8)
        mask[5:20, 7:30] = (0, 255, 0)
        for path, content in (
            (root / split / "images" / f"{name}.png", pixels),
            (root / split / "masks" / f"{name}_mask.png", mask),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(content).save(path)


def make_world(folder: Path) -> World:
    """`data-v1` holds the open set, `data-v2` also the closed one; model version 1 was trained on both.

    Of the open set, p9 shows p8's test picture flipped, and so is in quarantine; of the closed set, q7 shows p0's
    train picture as it is, under another name.
    """
    root = folder / "workspace"
    shown = {f"p{number}_0": ("train", scan(np.random.default_rng(number))) for number in range(4)}
    shown["p8_0"] = ("test", scan(np.random.default_rng(8)))
    shown["p9_0"] = ("train", np.ascontiguousarray(shown["p8_0"][1][:, ::-1]))
    shown["p9_1"] = ("train", scan(np.random.default_rng(9)))
    hidden = {f"q{number}_0": ("train", scan(np.random.default_rng(20 + number))) for number in range(3)}
    hidden["q7_0"] = ("train", shown["p0_0"][1])
    hidden["q7_1"] = ("train", scan(np.random.default_rng(31)))
    for name, pictures, text in (
        (OPEN, shown, CARD + "public: true\n"),
        (CLOSED, hidden, CARD.replace("MyPolyps", CLOSED)),
    ):
        card = folder / f"{name}.yaml"
        card.write_text(text, encoding="utf-8")
        write_raw(folder / "raw" / name, pictures)
        segfoundry(
            "data", "ingest", "--card", str(card), "--root", str(folder / "raw" / name), "--workspace", str(root)
        )
    place = Workspace.existing(root)
    store = open_store(place)
    store.client.create_registered_model("Mary's X-ray")  # another team's, in the same MLflow: nobody asks about it
    store.client.create_model_version("Mary's X-ray", "file:///elsewhere")
    store.client.set_registered_model_alias("Mary's X-ray", "champion", "1")
    register(place, store, folder / "one")
    return World(place, store, folder / "raw")


def register(place: Workspace, store: RegistryStore, folder: Path, **changes: Any) -> int:
    """Register a model of the workspace's newest data version; `changes` go into `train.json`."""
    candidate = samples.write_candidate(folder / "candidate", threshold=changes.pop("threshold", 100.0))
    evaluation = samples.write_evaluation(folder / "evaluation", candidate)
    cards = [read_dataset_file(place.data / name) for name in (OPEN, CLOSED)]
    digests = {card["dataset"]: card["manifest_digest"] for card in cards}
    train = json.loads((candidate / "train.json").read_text())
    write_json(candidate / "train.json", {**train, "datasets": digests, **changes})
    figures = json.loads((evaluation / "evaluation.json").read_text())
    write_json(evaluation / "evaluation.json", {**figures, "manifest_digests": digests})
    tag = repository.data_tags(place.root)[-1]
    commit = repository.git(place.root, "rev-list", "-n", "1", tag)
    lineage = build_lineage(
        candidate, evaluation, cards, data_version=tag, data_commit=commit, code_commit="0badf00d" * 5
    )
    made = store.register(
        candidate, evaluation, lineage, train, model_name=MODEL_NAME, example=(samples.picture(), samples.PROMPTS)
    )
    return made.version
