"""The gate on data: plainly broken data stops a run, and what was withdrawn is nobody's loss."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from infra.dvc import INGEST_PREFIX
from infra.errors import DataError, UsageError
from pipelines import events, gates, quality
from pipelines.plan import project_params
from pipelines.workspace import Workspace
from preprocessing import schema
from preprocessing.build import build_dataset
from preprocessing.withdrawn import Tombstone, add_tombstones, identifiers_of, read_tombstones
from tests.pipelines.test_gates import ONE
from tests.preprocessing.test_build import inventory_of
from tests.preprocessing.test_leakage import draw, name_in, picture

NAME = ONE.name
SPLITS = ("train", "train", "train", "val", "test", "test")


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Six patients, two of them in the test split."""
    root = tmp_path / "raw"
    for number, split in enumerate(SPLITS):
        draw(root, name_in(split, ONE.domain, 10 * number), picture(number))
    return root


@pytest.fixture
def place(tmp_path: Path, raw: Path) -> Workspace:
    """A workspace whose data-v1 has all six."""
    workspace = Workspace.prepare(tmp_path / "workspace", {**project_params(), "datasets": [NAME]})
    for folder in ("sources", "recipes"):
        (workspace.root / folder).mkdir()
    workspace.inventory(NAME).write_text("{}\n", encoding="utf-8")
    for name in (NAME, "train", "evaluate"):
        workspace.recipe(name).write_text("{}\n", encoding="utf-8")
    build(workspace, raw)
    return workspace


def build(place: Workspace, raw: Path) -> list[str]:
    """Build and tag as a run does; returns the cases that are left."""
    sections = place.params().section("harmonize", "shards", "splits")
    build_dataset(
        ONE,
        raw,
        inventory_of(raw),
        place.data / NAME,
        sections,
        pseudonym_key=b"k",
        case_cache=None,
        source_kind="mirror",
        withdrawn=identifiers_of(read_tombstones(place.tombstones), NAME),
    )
    place.repo.commit_stage(f"{INGEST_PREFIX}{NAME}")
    place.repo.tag_data_version()
    return sorted(set(schema.read_manifest(place.data / NAME)["case_id"].to_pylist()))


def withdraw(place: Workspace, cases: Sequence[str]) -> None:
    add_tombstones(place.tombstones, [Tombstone(NAME, one, "consent", "ann", "2026-01-01") for one in cases])


def set_quality(place: Workspace, **values: float) -> None:
    params: dict[str, Any] = place.params().model_dump()
    Workspace.prepare(place.root, {**params, "quality": {**params["quality"], **values}})


def cases_of(place: Workspace) -> list[str]:
    return sorted(set(schema.read_manifest(place.data / NAME)["case_id"].to_pylist()))


def test_losing_most_samples_is_refused_and_withdrawing_them_is_not(place: Workspace, raw: Path) -> None:
    cases = cases_of(place)
    withdraw(place, cases[:4])  # more than half of all
    assert build(place, raw) == cases[4:]
    quality.refuse(place, [NAME])
    # the same once the raw files of the withdrawn are gone, as they should be
    for path in list(raw.rglob("*.png")):
        if any(path.name.startswith(case) for case in cases[:4]):
            path.unlink()
    assert build(place, raw) == cases[4:]
    quality.refuse(place, [NAME])
    # what is lost beside them counts
    for path in list(raw.rglob(f"{cases[4]}*")):
        path.unlink()
    set_quality(place, max_lost_samples=0.4)
    assert build(place, raw) == cases[5:]
    with pytest.raises(DataError, match=r"at most 40% of its samples.*found 1 after 2 in data-v"):
        quality.refuse(place, [NAME])


def test_what_was_withdrawn_does_not_count_as_refused(place: Workspace, raw: Path) -> None:
    cases = cases_of(place)
    set_quality(place, max_quarantined=0.2, max_lost_samples=0.2)
    withdraw(place, cases[:4])
    build(place, raw)
    quality.refuse(place, [NAME])
    for path in raw.rglob(f"{cases[4]}*"):
        path.write_bytes(b"no picture")
    build(place, raw)
    with pytest.raises(DataError) as caught:
        quality.refuse(place, [NAME])
    assert "at most 20% of its samples" in str(caught.value)
    for path in raw.rglob(f"{cases[5]}*"):
        path.write_bytes(b"no picture")
    build(place, raw)
    with pytest.raises(DataError, match=r"at most 20% of its cases in quarantine.*found 2 of 6"):
        quality.refuse(place, [NAME])


def test_a_set_of_which_nothing_is_left_is_left_out_and_said(place: Workspace, raw: Path) -> None:
    withdraw(place, cases_of(place))
    assert build(place, raw) == []
    quality.refuse(place, [NAME])
    gates.refuse_leakage(place, [NAME])
    heard: list[dict[str, Any]] = []
    with events.listening(heard.append):
        with pytest.raises(UsageError, match=r"nothing to train on.*none of its 6 cases is left: 6 were withdrawn"):
            gates.for_training(place, [NAME])
        assert gates.for_evaluation(place, [NAME]) == []
    assert [(one["kind"], one["dataset"]) for one in heard] == [("left_out", NAME)] * 2


def test_a_split_of_which_nothing_is_left_is_not_measured(place: Workspace, raw: Path) -> None:
    rows = schema.read_manifest(place.data / NAME).to_pylist()
    held_out = sorted({row["case_id"] for row in rows if row["split"] == "test"})
    assert held_out
    withdraw(place, held_out)
    assert len(build(place, raw)) == len(SPLITS) - len(held_out)
    quality.refuse(place, [NAME])
    assert gates.for_training(place, [NAME]) == [NAME]
    heard: list[dict[str, Any]] = []
    with events.listening(heard.append):
        assert gates.for_evaluation(place, [NAME]) == []
    assert heard[0]["reason"] == f"nothing of its test split is left: {len(held_out)} cases were withdrawn"


def test_an_empty_set_that_nothing_was_withdrawn_from_is_refused(place: Workspace, raw: Path) -> None:
    for path in raw.rglob("*.png"):
        path.write_bytes(b"no picture")
    set_quality(place, max_quarantined=1.0, max_lost_samples=1.0)
    assert build(place, raw) == []
    with pytest.raises(DataError, match="expected samples, found none of 6 cases"):
        quality.refuse(place, [NAME])
