"""Ray: results as they finish, few items out at a time, dead workers replaced, errors as they were."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.compute import cluster_resources, ray_map, ray_session, remove_stale_temporary
from infra.errors import CaseError, ServiceError
from infra.settings import Settings

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    state = tmp_path_factory.mktemp("state")
    with ray_session(state, Settings(num_cpus=2)):
        yield state


def test_all_items_come_back_and_no_more_are_taken_than_are_out(ray: Path) -> None:
    taken = 0
    seen = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for value in range(12):
            taken += 1
            assert taken - seen <= 3
            yield value

    values = []
    for value in ray_map(lambda item: item * item, items(), max_in_flight=3):
        seen += 1
        values.append(value)
    assert sorted(values) == [item * item for item in range(12)]


def test_an_error_of_ours_arrives_as_it_was(ray: Path) -> None:
    def refuse(item: int) -> int:
        raise CaseError("mask_size", "512 × 512", f"{item} × 1", dataset="BUSI", case_id="a")

    with pytest.raises(CaseError) as raised:
        list(ray_map(refuse, [7]))
    assert raised.value.reason == "mask_size"
    assert raised.value.found == "7 × 1"


def test_a_worker_that_dies_once_is_replaced(ray: Path, tmp_path: Path) -> None:
    marker = tmp_path / "died"

    def die_once(item: int) -> int:
        if not marker.exists():
            marker.touch()
            os._exit(1)
        return item

    assert list(ray_map(die_once, [5])) == [5]


def test_an_item_that_always_kills_its_worker_is_named(ray: Path) -> None:
    def die(item: str) -> str:
        os._exit(1)

    with pytest.raises(ServiceError, match="3 times on the bad case"):
        list(ray_map(die, ["the bad case"]))


def test_a_session_within_a_session_is_the_same(ray: Path, tmp_path: Path) -> None:
    with ray_session(tmp_path):
        assert cluster_resources()["CPU"] == 2
    assert cluster_resources()["CPU"] == 2
    assert list(tmp_path.iterdir()) == []


def test_only_a_recorded_folder_of_ours_is_removed(tmp_path: Path) -> None:
    ours = Path(tempfile.mkdtemp(prefix="sf-"))
    record = tmp_path / "ray-temporary-folder"
    record.write_text(str(ours), encoding="utf-8")
    remove_stale_temporary(tmp_path)
    assert not ours.exists()
    kept = tmp_path / "sf-kept"
    kept.mkdir()
    record.write_text(str(kept), encoding="utf-8")
    remove_stale_temporary(tmp_path)
    assert kept.exists()
