"""What may not be trained on is not: leaking data, external test sets, datasets beyond a licence limit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from infra.errors import DataError, UsageError
from infra.params import check_params
from pipelines import events, gates, manual, stages
from pipelines.plan import project_params
from pipelines.workspace import Workspace
from preprocessing import schema
from preprocessing.build import build_dataset
from preprocessing.cards import DatasetCard, Licence
from tests.preprocessing.test_build import FLAT, inventory_of
from tests.preprocessing.test_leakage import draw, name_in, picture
from training.launch import run_training

FREE = Licence("CC0 1.0", spdx="CC0-1.0", redistribution="yes", commercial="yes")
ONE = replace(FLAT, name="One", licence=FREE)
CLOSED = replace(FLAT, name="Closed", licence=Licence("research only", redistribution="unknown", commercial="no"))
EXTERNAL = replace(FLAT, name="External", licence=FREE, evaluation_only=True)


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    """A workspace with three dataset versions that share nothing."""
    params = project_params()
    names = ["One", "Closed", "External"]
    workspace = Workspace.prepare(tmp_path / "workspace", {**params, "datasets": names})
    for start, card in ((0, ONE), (10, CLOSED), (20, EXTERNAL)):
        make(workspace, card, tmp_path / card.name, [picture(start + number) for number in range(4)])
    return workspace


def make(workspace: Workspace, card: DatasetCard, raw: Path, pictures: list[Any], split: str = "") -> None:
    for number, pixels in enumerate(pictures):
        wanted = split or ("train", "train", "val", "test")[number % 4]
        draw(raw, name_in(wanted, card.domain, 10 * number), pixels)
    sections = workspace.params().section("harmonize", "shards", "splits")
    options: dict[str, Any] = {"pseudonym_key": b"k", "case_cache": None, "source_kind": "mirror"}
    build_dataset(card, raw, inventory_of(raw), workspace.data / card.name, sections, **options)


def set_train(workspace: Workspace, **values: Any) -> None:
    path = workspace.root / "params.yaml"
    params = yaml.safe_load(path.read_text(encoding="utf-8"))
    params["train"].update(values)
    path.write_text(yaml.safe_dump(params), encoding="utf-8")


def names_of(place: Workspace) -> list[str]:
    return place.params().datasets


def test_an_external_set_is_evaluated_and_never_trained_on(place: Workspace) -> None:
    version = schema.read_dataset_file(place.data / "External")
    assert version["evaluation_only"]
    assert version["splits"] == {"train": 0, "val": 0, "test": 4}
    heard: list[dict[str, Any]] = []
    with events.listening(heard.append):
        assert gates.for_training(place, names_of(place)) == ["One", "Closed"]
    assert [event["dataset"] for event in heard] == ["External"]
    assert "kept for evaluation" in heard[0]["reason"]


def test_asking_to_train_on_an_external_set_is_an_error_that_says_what_to_do(place: Workspace) -> None:
    set_train(place, datasets=["One", "External"])
    with pytest.raises(UsageError, match=r"External: external test.*Take them out of train\.datasets"):
        gates.for_training(place, names_of(place))
    set_train(place, datasets=[])
    with pytest.raises(UsageError, match=r"nothing to train on.*External: an external test set"):
        gates.for_training(place, ["External"])
    options: dict[str, Any] = {"params": {"recipe": "tiny"}, "run_dir": place.state / "train"}
    with pytest.raises(UsageError, match=r"found external test sets.*External"):
        run_training(data_root=place.data, datasets=["One", "External"], out=place.candidate, **options)
    assert not place.candidate.exists()


def test_train_datasets_are_named_among_datasets() -> None:
    params = project_params()
    params["train"]["datasets"] = ["BUSI", "Elsewhere"]
    with pytest.raises(UsageError, match="not there: Elsewhere"):
        check_params(params, "params.yaml")


def test_a_licence_limit_leaves_out_what_does_not_say_yes(place: Workspace) -> None:
    set_train(place, licence="commercial")
    heard: list[dict[str, Any]] = []
    with events.listening(heard.append):
        assert gates.for_training(place, names_of(place)) == ["One"]
    reasons = {event["dataset"]: event["reason"] for event in heard}
    assert reasons["Closed"] == "commercial use: expected yes, its card says no (research only)"
    set_train(place, licence="redistribution")
    assert gates.for_training(place, names_of(place)) == ["One"]
    set_train(place, licence="any", datasets=["Closed"])
    assert gates.for_training(place, names_of(place)) == ["Closed"]


def test_a_limited_build_lists_only_what_the_limit_allows() -> None:
    params = project_params()
    heard: list[dict[str, Any]] = []
    with events.listening(heard.append):
        limited, kept = gates.limited(params, ["DSB2018", "Kvasir-SEG"], "commercial")
    assert kept == ["DSB2018"]
    assert "Kvasir-SEG" not in limited["datasets"]
    assert "CHASE_DB1" in limited["datasets"]
    assert limited["train"]["licence"] == "commercial"
    assert "research and educational use" in {event["dataset"]: event["reason"] for event in heard}["Kvasir-SEG"]
    check_params(limited, "params.yaml")
    assert gates.limited(limited, ["BUSI"], "any")[1] == ["BUSI"]
    with pytest.raises(UsageError, match="expected a dataset that it allows, found none"):
        gates.limited(params, ["GlaS"], "redistribution")
    with pytest.raises(UsageError, match="found 'comercial'"):
        gates.limited(params, ["GlaS"], "comercial")


@pytest.mark.parametrize("external", [False, True])
def test_training_and_evaluation_refuse_data_that_leak(place: Workspace, tmp_path: Path, external: bool) -> None:
    card = replace(ONE, name="Copy", evaluation_only=external)
    params = yaml.safe_load((place.root / "params.yaml").read_text(encoding="utf-8"))
    (place.root / "params.yaml").write_text(yaml.safe_dump({**params, "datasets": [*params["datasets"], "Copy"]}))
    assert gates.leakage(place, ["One", "Closed", "External"])["ok"]
    make(place, card, tmp_path / "copy", [np.ascontiguousarray(picture(0)[:, ::-1])], "test")
    found = gates.leakage(place, names_of(place))
    assert [one["near"] for one in found["matrix"]] == [1]
    assert gates.leakage(place, names_of(place)) == found  # as remembered
    for stage in (stages.train, stages.evaluate):
        (place.candidate).mkdir(parents=True, exist_ok=True)
        (place.candidate / "train.json").write_text("{}")
        with pytest.raises(DataError, match=r"One \(train\) and Copy \(test\) share 1 near"):
            stage(place)


def test_limiting_a_workspace_takes_the_others_out_of_it(tmp_path: Path) -> None:
    params = project_params()
    params["train"]["datasets"] = ["GlaS", "DSB2018"]
    workspace = Workspace.prepare(tmp_path / "workspace", {**params, "datasets": ["GlaS", "DSB2018"]})
    for name in ("GlaS", "DSB2018"):
        (workspace.data / name).mkdir(parents=True)
        workspace.recipe(name).parent.mkdir(exist_ok=True)
        workspace.recipe(name).write_text("{}")
    manual.limit(workspace, "commercial")
    limited = workspace.params()
    assert (limited.datasets, limited.train.datasets, limited.train.licence) == (["DSB2018"], ["DSB2018"], "commercial")
    assert [path.name for path in workspace.data.iterdir()] == ["DSB2018"]
