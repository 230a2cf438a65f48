"""SIGKILL at a random moment, started again: the same data, the same counts, a champion.

SEGFOUNDRY_TEST_KILLS sets how many moments (default 1), SEGFOUNDRY_TEST_SEED which.
"""

from __future__ import annotations

import logging
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from infra import repository
from infra.dvc import DataRepo
from infra.processes import CHILDREN_FILE, find
from infra.storage import read_json
from preprocessing.schema import read_dataset_file
from tests.e2e.conftest import Run, demo_arguments, document, environment, lenient_workspace, segfoundry

KILLS = int(os.environ.get("SEGFOUNDRY_TEST_KILLS", "1"))
SEED = int(os.environ.get("SEGFOUNDRY_TEST_SEED", str(time.time_ns() % 10_000)))

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.mark.parametrize("number", range(KILLS))
def test_killed_anywhere_it_ends_in_the_same_state(demo: Run, tmp_path: Path, number: int) -> None:
    moment = random.Random(SEED + number).uniform(2.0, demo.seconds)
    logging.getLogger(__name__).warning(
        f"seed {SEED + number}: SIGKILL after {moment:.1f} of about {demo.seconds:.0f} s"
    )
    root = lenient_workspace(tmp_path / "workspace")
    arguments = demo_arguments(root, demo.datasets)
    with (tmp_path / "log").open("w", encoding="utf-8") as log:
        run = subprocess.Popen(
            [sys.executable, "-m", "pipelines", *arguments], stdout=log, stderr=log, env=environment()
        )
        try:
            run.wait(timeout=moment)
        except subprocess.TimeoutExpired:
            run.kill()
            run.wait()
    left = read_json(root / ".segfoundry" / CHILDREN_FILE) if (root / ".segfoundry" / CHILDREN_FILE).exists() else []
    said = document(segfoundry(*arguments))
    assert not [record for record in left if find(record)], "a process of the killed run still lives"
    for row, expected in zip(said["datasets"], demo.said["datasets"], strict=True):
        assert {key: row[key] for key in ("name", "samples", "quarantined")} == {
            key: expected[key] for key in ("name", "samples", "quarantined")
        }
        ours = read_dataset_file(root / "data" / row["name"])
        assert ours["manifest_digest"] == read_dataset_file(demo.root / "data" / row["name"])["manifest_digest"]
    assert said["model"]["alias"] == "champion"
    assert said["data_version"] == "data-v1"
    assert DataRepo(root).status_clean()
    assert repository.git(root, "status", "--porcelain") == ""
