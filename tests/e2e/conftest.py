"""One short run of the whole line, shared by many assertions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

PROJECT = Path(__file__).resolve().parents[2]
PHANTOMS = ["Phantom_Nuclei", "Phantom_Lesion_US"]
REAL = ["BUSI"]  # small, and only where there is a mirror
STEPS = 4
# A few steps teach nothing: these runs are about the wiring, so the gate asks for nothing.
LENIENT = {"min_dice_text": 0.0, "min_gain_over_start": -1.0, "max_score_absent": 1.0, "max_loss_per_dataset": 1.0}


def environment() -> dict[str, str]:
    """The user's environment with this Python first on PATH, and no service of another run."""
    foreign = ("PREFECT_", "RAY_", "MLFLOW_")
    own = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    path = f"{Path(sys.executable).parent}{os.pathsep}{own['PATH']}"
    return {**own, "PATH": path, "SEGFOUNDRY_OFFLINE": "1"}


def segfoundry(*arguments: str, timeout: float = 580) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipelines", *arguments, "--json"],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=timeout,
        check=False,
    )


def document(done: subprocess.CompletedProcess[str], code: int = 0) -> dict[str, Any]:
    assert done.returncode == code, done.stderr[-4000:]
    value: dict[str, Any] = json.loads(done.stdout)
    return value


def lenient_workspace(root: Path) -> Path:
    root.mkdir(parents=True)
    params = yaml.safe_load((PROJECT / "params.yaml").read_text(encoding="utf-8"))
    (root / "params.yaml").write_text(yaml.safe_dump({**params, "gate": LENIENT}), encoding="utf-8")
    return root


def demo_arguments(root: Path, datasets: list[str], steps: int = STEPS) -> list[str]:
    return ["demo", "--workspace", str(root), "--datasets", ",".join(datasets), "--steps", str(steps)]


@dataclass(frozen=True)
class Run:
    """A finished demo: its workspace, what it said, how long it took."""

    root: Path
    datasets: list[str]
    said: dict[str, Any]
    seconds: float

    @property
    def arguments(self) -> list[str]:
        return demo_arguments(self.root, self.datasets)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = lenient_workspace(tmp_path_factory.mktemp("e2e") / "demo")
    datasets = [*PHANTOMS, *(REAL if os.environ.get("SEGFOUNDRY_MIRROR") else [])]
    begun = time.monotonic()
    said = document(segfoundry(*demo_arguments(root, datasets)))
    return Run(root, datasets, said, time.monotonic() - begun)
