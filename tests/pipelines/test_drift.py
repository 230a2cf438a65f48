"""Through the command line: a dataset that changes is said to have moved; leaks and licences have their exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.preprocessing.pictures import cells

pytestmark = pytest.mark.slow


def segfoundry(mirror: Path, *arguments: str, code: int = 0) -> dict[str, Any]:
    own = {
        name: value for name, value in os.environ.items() if not name.startswith(("SEGFOUNDRY_", "PREFECT_", "RAY_"))
    }
    done = subprocess.run(
        [sys.executable, "-m", "pipelines", *arguments, "--json"],
        capture_output=True, text=True, timeout=400, check=False,
        env={**own, "SEGFOUNDRY_OFFLINE": "1", "SEGFOUNDRY_MIRROR": str(mirror)},
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    value: dict[str, Any] = json.loads(done.stdout)
    return value


def draw(folder: Path, name: str, pixels: np.ndarray[Any, Any]) -> None:
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(folder / "images" / f"{name}.jpg", quality=95)
    mask = np.zeros(pixels.shape[:2], dtype=np.uint8)
    mask[10:40, 20:60] = 255
    Image.fromarray(mask).save(folder / "masks" / f"{name}.jpg", quality=95)


def test_drift_leakage_and_licences_answer(tmp_path: Path) -> None:
    place, mirror = ("--workspace", str(tmp_path / "workspace")), tmp_path / "mirror"
    for seed in range(24):
        draw(mirror / "Kvasir-SEG_mini", f"frame{seed:02d}", cells(np.random.default_rng(seed)))
    refused = segfoundry(mirror, "data", "ingest", "Kvasir-SEG_mini", "--licence", "commercial", *place, code=2)
    assert "its card says no (research and educational use" in refused["error"]
    first = segfoundry(mirror, "data", "ingest", "Kvasir-SEG_mini", *place)
    assert first["drift"] == []
    assert first["left_out"] == []
    for seed in range(24, 60):
        draw(mirror / "Kvasir-SEG_mini", f"frame{seed:02d}", cells(np.random.default_rng(seed)) // 3)
    # and the first frames, upside down under other names, in a dataset that knows nothing of the first one's groups
    for seed in range(24):
        draw(mirror / "Kvasir-SEG", f"other{seed:02d}", np.ascontiguousarray(cells(np.random.default_rng(seed))[::-1]))
    second = segfoundry(mirror, "data", "ingest", "Kvasir-SEG_mini", "Kvasir-SEG", *place)
    assert second["data_version"] == "data-v2"
    (moved,) = second["drift"]
    assert {"mean", "contrast"} <= set(moved["moved"])
    assert (moved["old"], moved["new"]) == ("data-v1", "data-v2")
    assert segfoundry(mirror, "data", "drift", "Kvasir-SEG_mini", *place) == moved
    found = segfoundry(mirror, "data", "leakage", *place, code=1)
    assert sum(one["near"] for one in found["matrix"]) > 3
    assert {one["train"] for one in found["matrix"]} <= {"Kvasir-SEG", "Kvasir-SEG_mini"}
