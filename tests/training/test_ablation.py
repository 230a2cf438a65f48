"""One switch at a time against the base: what is changed, what is written, what is not run twice."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from infra.errors import UsageError
from tests.training.made import write_dataset
from training.ablation import calibration_errors, main, result_file, table, usable
from training.ablation_switches import BASE, SWITCHES
from training.recipes import tiny
from training.sam3.losses import LossWeights


@pytest.mark.parametrize("switch", SWITCHES, ids=lambda switch: switch.name)
def test_each_switch_changes_its_own_fields_and_nothing_else(switch: Any) -> None:
    base = tiny()
    before, after = asdict(base), asdict(switch.applied(base))
    named = set(switch.fields) | ({"losses"} if switch.losses else set()) | ({"augment"} if switch.augment else set())
    assert {name for name in before if before[name] != after[name]} == named
    if switch.losses:
        changed = {
            name
            for name, value in asdict(LossWeights(**after["losses"])).items()
            if value != asdict(LossWeights(**before["losses"]))[name]
        }
        assert changed == set(switch.losses)


def _run(dice: float | None, absent: float | None) -> dict[str, Any]:
    return {"dice": dice, "absent": absent, "seconds": 10.0, "calibration": None}


def test_the_table_pairs_runs_by_seed() -> None:
    """Both changes have the same mean; seed by seed one always helps and the other does not."""
    steady, shaky, none = (_named(name) for name in ("steady", "shaky", "none"))
    results = {
        "base": [_run(0.2, 0.5), _run(0.4, 0.3)],
        "steady": [_run(0.3, 0.4), _run(0.5, 0.2)],
        "shaky": [_run(0.5, 0.5), _run(0.3, None)],
        "none": [_run(None, None), _run(None, None)],
    }
    rows = table(results, [BASE, steady, shaky, none]).splitlines()[2:]
    assert rows[0].startswith("| the base as it is | 0.300 (0.200 … 0.400) |  | 0.400 (0.300 … 0.500) |  |")
    assert "| 0.400 (0.300 … 0.500) | +0.100 (+0.100 … +0.100) | 0.300 (0.200 … 0.400) | -0.100" in rows[1]
    assert "| 0.400 (0.300 … 0.500) | +0.100 (-0.100 … +0.300) | 0.500 | +0.000 |" in rows[2]
    assert "| – | – | – | – |" in rows[3]


def _named(name: str) -> Any:
    return replace(BASE, name=name, words=name)


def test_a_result_belongs_to_its_recipe_and_its_data(tmp_path: Path) -> None:
    places = {
        result_file(tmp_path, BASE, recipe, digests)
        for recipe, digests in (
            (tiny(), {"Alpha": "1"}),
            (replace(tiny(), steps=3), {"Alpha": "1"}),
            (tiny(), {"Alpha": "2"}),
            (replace(tiny(), seed=8), {"Alpha": "1"}),
        )
    }
    assert len(places) == 4


def test_calibration_is_judged_on_groups_that_it_was_not_fitted_on() -> None:
    """Two groups that contradict each other: a fit judged on its own half would look right, this one looks wrong."""
    rows = [
        {"dataset": "one", "group_id": group, "presence": presence, "present": present}
        for group, swap in (("a", False), ("b", True))
        for presence, present in ((0.9, not swap), (0.8, not swap), (0.2, swap), (0.1, swap))
        for _ in range(10)
    ]
    found = calibration_errors(rows)
    assert found is not None
    assert found["after"] > 0.3
    assert calibration_errors(rows[:40]) is None


def test_datasets_without_validation_are_refused(tmp_path: Path) -> None:
    write_dataset(tmp_path, "Alpha", 4)
    with pytest.raises(UsageError, match="training and validation samples, found Alpha"):
        usable(tmp_path)
    write_dataset(tmp_path, "Beta", 4, splits=("train", "val"))
    write_dataset(tmp_path, "Gamma", 4, splits=("test",))
    assert usable(tmp_path) == ["Alpha", "Beta"]


@pytest.mark.slow
def test_runs_that_are_there_are_not_run_again(tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_dataset(data, "Alpha", 12, splits=("train", "val", "test"))
    arguments = [
        *("--data", str(data), "--out", str(tmp_path / "page.md"), "--results", str(tmp_path / "results")),
        *("--steps", "1", "--seeds", "7", "--threads", "1", "--switches", "no-masks"),
    ]
    assert main(arguments) == 0
    files = sorted((tmp_path / "results").glob("*.json"))
    assert [file.name.split("-7-")[0] for file in files] == ["base", "no-masks"]
    page = (tmp_path / "page.md").read_text()
    assert str(tmp_path) not in page
    assert "python -m training.ablation --data DATA" in page
    # a figure that no run would give shows that the file was read, and the file that is gone comes back
    marked = json.loads(files[0].read_text())
    files[0].write_text(json.dumps({**marked, "dice": 0.987}))
    kept = files[1].read_bytes()
    files[1].unlink()
    assert main(arguments) == 0
    assert "0.987" in (tmp_path / "page.md").read_text()
    again, first = json.loads(files[1].read_text()), json.loads(kept)
    assert {**again, "seconds": 0} == {**first, "seconds": 0}
