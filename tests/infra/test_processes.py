"""One run a workspace; what a killed one left is ended; nothing else ever is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from infra.errors import UsageError
from infra.processes import (
    CHILDREN_FILE,
    LOCK_FILE,
    RunLock,
    end,
    find,
    identify,
    reap_leftovers,
)
from infra.storage import read_json, write_json

SLEEPER = [sys.executable, "-c", "import time; time.sleep(60)"]


def test_a_second_run_is_refused_while_the_first_lives_and_named(tmp_path: Path) -> None:
    with RunLock(tmp_path, "demo"), pytest.raises(UsageError, match=rf"demo, process {os.getpid()}"):
        RunLock(tmp_path, "train").__enter__()
    with RunLock(tmp_path, "train"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    process = psutil.Popen(SLEEPER)
    record = identify(process)
    write_json(tmp_path / LOCK_FILE, {**record, "what": "demo"})
    process.kill()
    process.wait()
    with RunLock(tmp_path, "demo"):
        assert read_json(tmp_path / LOCK_FILE)["pid"] == os.getpid()


def test_an_id_that_was_given_again_is_not_the_recorded_process() -> None:
    record = identify(psutil.Process())
    assert find(record) is not None
    assert find({**record, "started": record["started"] - 100}) is None
    assert end([{**record, "started": record["started"] - 100}]) == []


@pytest.mark.slow
def test_children_of_a_killed_run_are_ended_by_the_next(tmp_path: Path) -> None:
    program = (
        "import subprocess, sys, time\n"
        "from pathlib import Path\n"
        "from infra.processes import recorded_children\n"
        f"with recorded_children(Path({str(tmp_path)!r}), 0.05):\n"
        f"    subprocess.Popen({SLEEPER!r}, start_new_session=True)\n"
        "    time.sleep(60)\n"
    )
    run = subprocess.Popen([sys.executable, "-c", program])
    deadline = time.monotonic() + 30
    records: list[dict[str, object]] = []
    while not records and time.monotonic() < deadline:
        time.sleep(0.05)
        if (tmp_path / CHILDREN_FILE).exists():
            records = read_json(tmp_path / CHILDREN_FILE)
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert find(records[0]) is not None
    assert len(reap_leftovers(tmp_path)) == 1
    assert find(records[0]) is None
    assert reap_leftovers(tmp_path) == []


def test_what_a_killed_run_left_stays_on_the_list_until_somebody_ends_it(tmp_path: Path) -> None:
    left = psutil.Popen(SLEEPER)
    write_json(tmp_path / CHILDREN_FILE, [identify(left)])
    program = (  # a run that cleans nothing away, as the nightly audit
        "from pathlib import Path\n"
        "from infra.processes import recorded_children\n"
        f"with recorded_children(Path({str(tmp_path)!r})):\n"
        "    pass\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    try:
        assert [record["pid"] for record in read_json(tmp_path / CHILDREN_FILE)] == [left.pid]
    finally:
        left.kill()
        left.wait()


def test_a_run_that_ends_well_leaves_no_record(tmp_path: Path) -> None:
    program = (  # a process of its own: children of other tests may live in this one
        "import subprocess\n"
        "from pathlib import Path\n"
        "from infra.processes import CHILDREN_FILE, recorded_children\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "with recorded_children(folder):\n"
        f"    child = subprocess.Popen({SLEEPER!r})\n"
        "    assert (folder / CHILDREN_FILE).exists()\n"
        "    child.kill()\n"
        "    child.wait()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    assert not (tmp_path / CHILDREN_FILE).exists()
