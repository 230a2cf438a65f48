"""`segfoundry flow serve` for real: a dataset is dropped, its worker is killed, and no hand touches anything.

A Prefect server, the served flows as a process of their own, Ray, MLflow, the phantoms, a few training steps. With
SEGFOUNDRY_SOAK=1 the worker is killed in every part of a retraining, and the server and the serving process too.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from infra import repository, services
from infra.dvc import DataRepo
from infra.processes import end, identify
from infra.storage import read_json
from pipelines import orchestration
from pipelines.workspace import Workspace
from preprocessing.phantoms import make_phantom
from preprocessing.schema import read_dataset_file
from tests.e2e.conftest import Run, document, environment, segfoundry

SOAK = os.environ.get("SEGFOUNDRY_SOAK") == "1"
PARTS = ["sources", "ingest@Phantom_MR_NIfTI", "gates", "train", "evaluate", "release"]
NEW = "Phantom_MR_NIfTI"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@dataclass
class Served:
    """A workspace whose flows are served."""

    place: Workspace
    inbox: Path
    api: str
    log: Path
    process: subprocess.Popen[bytes]

    def ask(self, what: str, **body: Any) -> Any:
        answer = httpx.post(f"{self.api}/{what}/filter", json=body, timeout=30)
        answer.raise_for_status()
        return answer.json()

    def runs(self) -> list[dict[str, Any]]:
        """Runs in this workspace that have begun, oldest first; its server's database knows the demo's too."""
        mine = [run for run in self.ask("flow_runs") if run["parameters"].get("workspace") == str(self.place.root)]
        return sorted((run for run in mine if run["start_time"]), key=lambda run: str(run["start_time"]))

    def until(self, true: Callable[[], Any], seconds: float, what: str, every: float = 0.5) -> Any:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if found := true():
                return found
            time.sleep(every)
        pytest.fail(f"{what} within {seconds:.0f} s. {self.log.read_text(encoding='utf-8')[-3000:]}")

    def task_runs(self, name: str) -> Any:
        """Whether a task of this name runs now."""
        tasks = self.ask("task_runs", task_runs={"state": {"type": {"any_": ["RUNNING"]}}})
        return any(task["name"] == name or task["name"].startswith(f"{name}-") for task in tasks)

    def worker(self) -> psutil.Process:
        """The process that works on the run that is under way."""
        (record,) = [read_json(path) for path in (self.place.state / "flow-runs").glob("*.json")]
        return psutil.Process(record["pid"])


def _start(place: Workspace, inbox: Path, api: str, log: Path) -> subprocess.Popen[bytes]:
    own = {
        **environment(),
        "PREFECT_API_URL": api,
        "SEGFOUNDRY_WATCH_EVERY_S": "1",
        "SEGFOUNDRY_WATCH_SETTLE_S": "2",
    }
    command = [sys.executable, "-m", "pipelines", "flow", "serve", "--workspace", str(place.root)]
    with log.open("ab") as output:
        return subprocess.Popen(
            [*command, "--watch", str(inbox), "--retrain-cron", "", "--audit-cron", ""],
            stdout=output,
            stderr=output,
            env=own,
            start_new_session=True,
        )


def _copy_of(demo: Run, root: Path) -> Workspace:
    """The finished demo as a workspace of its own, its phantoms beside it, so that nothing waits to be made."""
    shutil.copytree(demo.root, root, symlinks=True)
    return Workspace(root)


@pytest.fixture
def served(demo: Run, tmp_path: Path) -> Iterator[Served]:
    place = _copy_of(demo, tmp_path / "workspace")
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    log = tmp_path / "serve.log"
    running = services.up(place.state, [services.prefect_service(orchestration.home(place.state))])
    process = _start(place, inbox, running["prefect"]["api"], log)
    found = Served(place, inbox, running["prefect"]["api"], log, process)
    try:
        found.until(lambda: "serving" in log.read_text(encoding="utf-8"), 120, "flows are served")
        yield found
    finally:
        _end_family(found.process)
        services.down(place.state)


def _end_family(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        family = [identify(one) for one in psutil.Process(process.pid).children(recursive=True)]
        process.kill()
        process.wait()
        end(family)


def _drop(served: Served, made: Path, name: str = NEW) -> None:
    shutil.copytree(made / name, served.inbox / name)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made")
    make_phantom(NEW, root, 7)
    return root


def _state(place: Workspace) -> dict[str, Any]:
    where = ["--workspace", str(place.root)]
    rows = document(segfoundry("model", "list", *where))["models"]
    return {
        "tags": repository.data_tags(place.root),
        "digests": {name: read_dataset_file(place.data / name)["manifest_digest"] for name in place.params().datasets},
        "versions": [row["version"] for row in rows],
        "gates": [row["gate"] for row in rows],
        "weights": read_json(place.candidate / "train.json")["weights_sha256"],
        "ledger": document(segfoundry("audit", "ledger", *where))["entries"],
    }


@pytest.fixture(scope="module")
def undisturbed(demo: Run, made: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The state after the same dataset came and nobody was killed."""
    root = tmp_path_factory.mktemp("undisturbed")
    place = _copy_of(demo, root / "workspace")
    shutil.copytree(made / NEW, root / "inbox" / NEW)
    time.sleep(5)  # a folder that has just been written is left alone
    command = [sys.executable, "-m", "pipelines", "flow", "run", "retrain", "--workspace", str(place.root)]
    own = {**environment(), "SEGFOUNDRY_WATCH": str(root / "inbox"), "SEGFOUNDRY_WATCH_SETTLE_S": "1"}
    done = subprocess.run(command, env=own, capture_output=True, text=True, timeout=600)
    found = _state(place)
    assert found["tags"] == ["data-v1", "data-v2"], done.stderr[-3000:]
    return found


def _killed_at(served: Served, made: Path, part: str) -> dict[str, Any]:
    """Drop the dataset, kill the worker in `part`, wait until all is done by itself; the state that is left."""
    _drop(served, made)
    served.until(lambda: served.task_runs(part), 240, f"{part} runs", every=0.02)  # the gates take a moment only
    worker = served.worker()
    worker.send_signal(signal.SIGKILL)
    killed = time.monotonic()
    first = served.runs()[0]["id"]
    served.until(
        lambda: next(run for run in served.runs() if run["id"] == first)["state_name"] == "Crashed",
        90,
        "the killed run is marked crashed",
    )
    assert time.monotonic() - killed < 90
    served.until(lambda: [run for run in served.runs() if run["state_name"] == "Completed"], 400, "it is taken up")
    names = [run["state_name"] for run in served.runs()]
    assert names == ["Crashed", "Completed"], served.log.read_text(encoding="utf-8")[-3000:]
    return _state(served.place)


def test_a_dropped_dataset_becomes_a_judged_model_by_itself_though_its_worker_is_killed(
    served: Served, made: Path
) -> None:
    before = _state(served.place)
    after = _killed_at(served, made, "train")
    assert NEW in after["digests"]
    assert after["tags"] == ["data-v1", "data-v2"]
    assert after["versions"] == [2, 1]
    assert after["gates"][0] in ("pass", "block")
    assert after["ledger"] == before["ledger"] + 2  # an intent and its done row: one promotion
    assert DataRepo(served.place.root).status_clean()
    assert repository.git(served.place.root, "status", "--porcelain") == ""

    artifacts = {one["key"] for one in served.ask("artifacts") if one["key"]}
    assert {"progress", "data-diff", "evaluation", "overlays", "model", "report"} <= artifacts

    shutil.rmtree(served.inbox / NEW)  # the same bytes once more
    _drop(served, made)
    time.sleep(8)  # four times the settle time
    assert len(served.runs()) == 2
    assert _state(served.place) == after


@pytest.mark.skipif(not SOAK, reason="every part of a retraining: SEGFOUNDRY_SOAK=1")
@pytest.mark.parametrize("part", PARTS)
def test_killed_in_any_part_it_ends_in_the_same_state(
    served: Served, made: Path, undisturbed: dict[str, Any], part: str
) -> None:
    assert _killed_at(served, made, part) == undisturbed


@pytest.mark.skipif(not SOAK, reason="the serving process itself: SEGFOUNDRY_SOAK=1")
def test_the_serving_process_and_its_worker_are_killed_and_the_next_one_goes_on(served: Served, made: Path) -> None:
    _drop(served, made)
    served.until(lambda: served.task_runs("train"), 240, "training runs")
    worker = served.worker()
    served.process.kill()
    served.process.wait()
    worker.kill()
    begun = time.monotonic()
    served.process = _start(served.place, served.inbox, served.api, served.log)
    served.until(lambda: served.runs()[0]["state_name"] == "Crashed", 90, "the orphan is marked crashed")
    assert time.monotonic() - begun < 90
    served.until(lambda: served.runs()[-1]["state_name"] == "Completed", 400, "it is taken up")
    assert _state(served.place)["versions"] == [2, 1]


@pytest.mark.skipif(not SOAK, reason="a minute without Prefect: SEGFOUNDRY_SOAK=1")
def test_a_minute_without_prefect_costs_no_run(served: Served, made: Path) -> None:
    _drop(served, made)
    served.until(lambda: served.task_runs("train"), 240, "training runs")
    server = psutil.Process(services.status(served.place.state)["prefect"]["pid"])
    family = [server, *server.children(recursive=True)]
    for process in family:
        process.suspend()
    time.sleep(60)
    for process in family:
        process.resume()
    served.until(lambda: [run for run in served.runs() if run["state_name"] == "Completed"], 400, "the run ends well")
    assert [run["state_name"] for run in served.runs()] == ["Completed"]
