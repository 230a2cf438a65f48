"""params.yaml: the project's own file holds; what is wrong is named with file, key, expected, found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.errors import UsageError
from infra.params import check_params, load_params

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture
def values() -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((PROJECT / "params.yaml").read_text(encoding="utf-8"))
    return read


def test_the_projects_own_file_is_accepted_and_comes_back_unchanged(values: dict[str, Any]) -> None:
    assert load_params(PROJECT / "params.yaml").model_dump() == values


@pytest.mark.parametrize(
    ("section", "key", "value", "words"),
    [
        ("train", "steps", -1, ["train.steps", "greater than or equal to 0", "-1"]),
        ("train", "steps", "many", ["train.steps", "integer", "'many'"]),
        ("train", "stepz", 3, ["train.stepz", "no such key"]),
        ("splits", "val", 1.5, ["splits.val", "less than or equal to 1", "1.5"]),
        ("splits", "val", 0.9, ["splits", "val + test must be below 1"]),
        ("harmonize", "orientation", "XYZ", ["harmonize.orientation", "'XYZ'"]),
        ("evaluate", "split", "dev", ["evaluate.split", "'train', 'val' or 'test'", "'dev'"]),
        ("gate", "min_dice_text", None, ["gate.min_dice_text", "number", "None"]),
    ],
)
def test_a_bad_value_is_named(values: dict[str, Any], section: str, key: str, value: Any, words: list[str]) -> None:
    values[section][key] = value
    with pytest.raises(UsageError) as raised:
        check_params(values, "some/params.yaml")
    for word in ["some/params.yaml", *words]:
        assert word in str(raised.value)


def test_a_dataset_named_twice_is_refused(values: dict[str, Any]) -> None:
    values["datasets"].append(values["datasets"][0])
    with pytest.raises(UsageError, match="named once"):
        check_params(values, "params.yaml")


def test_a_missing_section_and_a_broken_file_are_named(tmp_path: Path, values: dict[str, Any]) -> None:
    del values["gate"]
    with pytest.raises(UsageError, match="gate: expected"):
        check_params(values, "params.yaml")
    broken = tmp_path / "params.yaml"
    broken.write_text("train: [1,\n", encoding="utf-8")
    with pytest.raises(UsageError, match="not YAML"):
        load_params(broken)
    with pytest.raises(UsageError, match="no such file"):
        load_params(tmp_path / "none.yaml")
