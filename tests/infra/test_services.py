"""Both servers start for real, answer, are found again, and end with their children."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import psutil
import pytest

from infra import services
from infra.errors import ServiceError

pytestmark = pytest.mark.slow


def test_the_stack_comes_up_answers_and_goes_down(tmp_path: Path) -> None:
    wanted = [
        services.mlflow_service(f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "artifacts"),
        services.prefect_service(tmp_path / "prefect"),
    ]
    try:
        running = services.up(tmp_path, wanted)
        assert set(running) == {"mlflow", "prefect"}
        assert services.up(tmp_path, wanted) == running
        for address in (f"{running['mlflow']['url']}/version", f"{running['prefect']['api']}/health"):
            with urllib.request.urlopen(address, timeout=30) as answer:
                assert answer.status == 200
        pids = [one["pid"] for one in running.values()]
    finally:
        services.down(tmp_path)
    assert services.status(tmp_path) == {}
    assert not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in pids)


def test_a_server_that_does_not_start_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    broken = services.Service("broken", ("sh", "-c", "echo no database for {port} >&2; exit 3"), {})
    with pytest.raises(ServiceError, match="no database for"):
        services.up(tmp_path, [broken])
    assert services.status(tmp_path) == {}
