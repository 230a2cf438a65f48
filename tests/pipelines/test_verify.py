"""A damaged file is a finding that names it, and costs the nightly audit nothing of what its other checks say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from infra.errors import DataError, ServiceError, UsageError
from infra.storage import read_json
from pipelines import gates, nightly, quality, verify
from pipelines.flows import policy
from pipelines.plan import project_params
from pipelines.workspace import Workspace
from preprocessing import schema
from tests.pipelines.test_gates import CLOSED, ONE, make
from tests.preprocessing.test_leakage import picture


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    """A workspace with two dataset versions."""
    names = ["One", "Closed"]
    workspace = Workspace.prepare(tmp_path / "workspace", {**project_params(), "datasets": names})
    for start, card in ((0, ONE), (10, CLOSED)):
        make(workspace, card, tmp_path / card.name, [picture(start + number) for number in range(4)])
    return workspace


def cut(path: Path) -> None:
    payload = path.read_bytes()
    path.unlink()
    path.write_bytes(payload[: len(payload) // 2])


def scribble(path: Path) -> None:
    payload = bytearray(path.read_bytes())
    payload[4 : len(payload) // 2] = b"\xff" * (len(payload) // 2 - 4)
    path.unlink()
    path.write_bytes(payload)


@pytest.mark.parametrize("damage", [cut, scribble])
@pytest.mark.parametrize(
    "file", [schema.MANIFEST_FILE, schema.DATASET_FILE, schema.HASHES_FILE, schema.QUARANTINE_FILE, schema.CASES_FILE]
)
def test_a_file_that_cannot_be_read_is_a_finding_with_what_mends_it(
    place: Workspace, file: str, damage: Callable[[Path], None]
) -> None:
    assert verify.dataset(place, "One")["ok"]
    damage(place.data / "One" / file)
    found = verify.dataset(place, "One")
    assert not found["ok"]
    said = next(one for one in found["problems"] if one.startswith(f"{file}: expected a file that can be read, found "))
    assert f"Delete data/One/{file} and run: segfoundry data ingest One" in said
    assert verify.dataset(place, "Closed")["ok"]
    with pytest.raises(DataError, match=rf"One: {file}: expected a file that can be read"):
        quality.refuse(place, ["One", "Closed"])


def test_what_a_dataset_lacks_and_what_is_not_built(place: Workspace) -> None:
    shard = next((place.data / "One").glob("shard-*"))
    shard.unlink()
    assert verify.dataset(place, "One")["problems"][0].startswith(f"{shard.name}: expected the shard, found no file")
    (place.data / "One" / schema.DATASET_FILE).unlink()
    with pytest.raises(UsageError, match="no dataset version here"):
        verify.dataset(place, "One")


def test_bytes_that_are_no_parquet_file_are_not_read_again_and_again(place: Workspace) -> None:
    path = place.data / "One" / schema.MANIFEST_FILE
    for damage in (scribble, cut):
        damage(path)
        with pytest.raises(Exception) as caught:  # noqa: PT011 - OSError or ArrowInvalid, as pyarrow likes
            schema.read_manifest(path.parent)
        assert not policy.can_pass(caught.value), repr(caught.value)


def test_the_audit_keeps_what_its_other_checks_found(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (place.data / "Nobodys").mkdir()
    cut(place.data / "One" / schema.MANIFEST_FILE)
    checks = nightly.audit(place)["checks"]
    assert len(checks) == 5
    assert any("One: manifest.parquet: expected a file that can be read" in one for one in checks["shards"]["findings"])
    assert checks["leakage"]["findings"][0].startswith("expected a check that can be made, found ArrowInvalid: ")
    assert checks["ledger"]["ok"]
    assert "data/Nobodys" in checks["orphans in files"]["findings"][0]

    def gone(place: Workspace, names: list[str]) -> None:
        msg = "a service that is not there"
        raise ServiceError(msg)

    monkeypatch.setattr(gates, "refuse_leakage", gone)
    with pytest.raises(nightly.Unanswered, match="leakage: a service that is not there") as caught:
        nightly.audit(place)
    assert policy.can_pass(caught.value)
    document = caught.value.document
    assert not document["ok"]
    assert [name for name, one in document["checks"].items() if one["ok"]] == ["ledger", "orphans in the registry"]
    nightly.keep(place, document)
    kept = list((place.state / nightly.FOLDER).glob("*.json"))
    assert [read_json(path) for path in kept] == [document]
