"""What the figures were measured on: processor, memory, load and versions; no host name."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

OURS = ("ray", "pyarrow", "numpy", "SimpleITK", "Pillow", "imagecodecs", "duckdb")
PEERS = ("monai", "torch", "opencv-python-headless", "SimpleITK", "nibabel", "numpy")


def describe() -> dict[str, Any]:
    """Machine and versions at this moment; `load_before` is the load average before anything was measured."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": psutil.virtual_memory().total,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
        "versions": {name: version(name) for name in OURS},
    }


def peer_versions(python: Path) -> dict[str, str]:
    """Versions of the peers' packages, as their interpreter sees them."""
    code = f"import json; from importlib.metadata import version; print(json.dumps({{n: version(n) for n in {PEERS}}}))"
    done = subprocess.run([str(python), "-c", code], check=True, text=True, stdout=subprocess.PIPE)
    found: dict[str, str] = json.loads(done.stdout)
    return found


def _cpu() -> str:
    """The processor's name; empty where the system does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
