"""What the audit verbs understand as a model, a request that is answered, and a refused line."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from infra.errors import DataError, UsageError
from pipelines import requests
from pipelines.audits import changes, purged
from pipelines.audits.keys import _pool, find
from pipelines.audits.model import named
from pipelines.audits.pages import data_page
from pipelines.audits.record import open_record
from pipelines.bench.audits import DATASET, make_workspace
from pipelines.workspace import MODEL_NAME, Workspace
from registry.audit_page import BAD
from registry.store import ModelVersion


@pytest.mark.parametrize(
    ("text", "model", "version"),
    [
        ("champion", MODEL_NAME, "champion"),
        ("3", MODEL_NAME, "3"),
        ("@champion", MODEL_NAME, "champion"),
        ("other@challenger", "other", "challenger"),
        ("models:/other/3", "other", "3"),
        ("models:/other@champion", "other", "champion"),
        ("other/v2", "other", "v2"),
    ],
)
def test_a_model_is_named_as_mlflow_names_it_or_shorter(text: str, model: str, version: str) -> None:
    assert named(text) == (model, version)


@pytest.mark.parametrize("text", ["", "other@", "models:/a/b/c", "a@b@c"])
def test_another_name_is_refused_with_the_forms_there_are(text: str) -> None:
    with pytest.raises(UsageError, match="models:/NAME/version"):
        named(text)


def test_a_request_is_answered_by_the_first_model_of_a_later_data_version(tmp_path: Path) -> None:
    place = Workspace(tmp_path)

    def ask(*cases: str) -> object:
        return requests.ask(
            place, cause=requests.WITHDRAWN, key="d/c", reason="consent", actor="ann", data_version="data-v9",
            cases=cases, models=[],
        )  # fmt: skip

    assert ask("d/c", "e/copy") == ask("e/copy", "d/c")
    assert ask("d/c") == ask("d/c", "e/copy")  # the copy is no longer in the workspace
    assert len(requests.read_requests(place)) == 1  # the same twice is one
    versions = [
        ModelVersion("m", number, "r", {"segfoundry.data_version": tag}, ())
        for number, tag in ((4, "data-v11"), (3, "data-v10"), (2, "data-v9"), (1, "data-v2"))
    ]
    assert requests.answered_by(requests.read_requests(place)[0], versions) == 3
    assert requests.open_requests(place, versions[2:]) == requests.read_requests(place)
    assert requests.open_requests(place, versions) == []


def test_version_3_of_another_model_is_not_version_3_of_ours(tmp_path: Path) -> None:
    place = Workspace(tmp_path)
    seen = [
        {"name": "other", "version": 3, "aliases": [], "uses": ["trained on"]},
        {"name": "ours", "version": 1, "aliases": [], "uses": ["trained on"]},
    ]
    request = requests.ask(
        place, cause=requests.WITHDRAWN, key="d/c", reason="consent", actor="ann", data_version="data-v9",
        cases=["d/c"], models=seen,
    )  # fmt: skip
    tags = {"segfoundry.data_version": "data-v10"}
    ours = [ModelVersion("ours", number, "r", tags, ()) for number in (3, 2, 1)]
    assert requests.learnt_from(request, ours) == {1}
    assert requests.answered_by(request, [ours[0], ours[2]]) == 3
    assert requests.learnt_from(request, [ModelVersion("other", 3, "r", tags, ())]) == {3}


@pytest.mark.parametrize("module", [requests, purged])
def test_a_torn_line_is_an_error_that_names_it(tmp_path: Path, module: object) -> None:
    place = Workspace(tmp_path)
    module.path_of(place).write_text('{"id": 1}\n', encoding="utf-8")  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="line 1"):
        requests.read_requests(place) if module is requests else purged.read(place)


def test_near_names_are_looked_for_among_those_that_begin_alike() -> None:
    names = pa.array([f"case{number:06d}" for number in range(20_000)])
    pool = _pool(names, "case01234x").to_pylist()
    assert "case012345" in pool
    assert len(pool) < 2000


def test_a_case_in_another_split_than_before_is_told_as_an_error(tmp_path: Path) -> None:
    """On the benchmark's workspace: of 20,000 rows every 1,000th changed, each time in another way."""
    place = make_workspace(tmp_path / "workspace", 20_000)
    with open_record(place) as record:
        found = changes.audit(record, "data-v1", "data-v2")
        assert find(record, f"{DATASET}/case00000500").of(DATASET) == ("case00000500",)
        assert find(record, f"{DATASET}/case00000500/z0003").sample == f"{DATASET}/case00000500/z0003"
    assert not found["ok"]
    assert found["datasets"][0]["counts"] == {
        "relabelled": 4,
        "pixels changed": 4,
        "samples added": 4,
        "samples removed": 4,
        "split moved": 4,
    }
    moved = [one for one in found["datasets"][0]["changes"] if one["reason"] == "split moved"]
    assert all("→" in one["detail"] for one in moved)
    page = data_page(found, place)
    assert page.badges[0].kind == BAD
    assert len(page.sections[1].bad) == 4
