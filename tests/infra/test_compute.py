"""Ray: results as they finish, few items out at a time, dead workers replaced, errors as they were."""

from __future__ import annotations

import os
import tempfile
import time
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


def test_quick_items_share_tasks_and_slow_ones_do_not(ray: Path) -> None:
    import ray as runtime

    def task(item: float) -> str:
        time.sleep(item)
        return str(runtime.get_runtime_context().get_task_id())

    assert len(set(ray_map(task, [0.0] * 200))) < 100
    assert len(set(ray_map(task, [0.15] * 6))) == 6


def test_an_item_that_kills_its_worker_is_found_among_the_others_of_its_task(ray: Path) -> None:
    def die(item: int) -> int:
        if item == 150:
            os._exit(1)
        return item

    with pytest.raises(ServiceError, match="3 times on 150"):
        list(ray_map(die, range(200)))


def test_a_batch_whose_worker_dies_once_comes_back_whole(ray: Path, tmp_path: Path) -> None:
    marker = tmp_path / "died"

    def die_once(item: int) -> int:
        if item == 150 and not marker.exists():
            marker.touch()
            os._exit(1)
        return item

    assert sorted(ray_map(die_once, range(200))) == list(range(200))


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
