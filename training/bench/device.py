"""What the device is, what it could do at most, and how much memory a process takes of it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import resource
import time
from pathlib import Path
from typing import Any

import torch

DENSE_PEAK = {
    # NVIDIA's data sheets, dense, tensor cores for bf16 and none for fp32 (TF32 is off), in FLOP/s
    "H200": {"bf16": 989e12, "fp32": 67e12},
    "H100 PCIe": {"bf16": 756e12, "fp32": 51e12},
    "H100 NVL": {"bf16": 835e12, "fp32": 60e12},
    "H100": {"bf16": 989e12, "fp32": 67e12},
    "A100": {"bf16": 312e12, "fp32": 19.5e12},
}
"""By a part of the device's name; the first that fits counts."""

_MATRIX = {"cpu": 1024, "cuda": 8192}
_MEASURED_SECONDS = 1.0


def chosen(name: str) -> torch.device:
    """Device by name; `auto` is CUDA where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)


def describe(device: torch.device) -> dict[str, Any]:
    """Name, cores or memory, and versions; no host name."""
    import transformers

    found: dict[str, Any] = {
        "type": device.type,
        "name": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "threads": torch.get_num_threads(),
        "load_before": round(os.getloadavg()[0], 2),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }
    if device.type == "cuda":
        found["memory_bytes"] = torch.cuda.get_device_properties(device).total_memory
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def peak_flops(device: torch.device, precision: str) -> dict[str, Any]:
    """FLOP/s at most: the data sheet's for a GPU we know, else what a large matrix product reaches in this run."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        for part, peaks in DENSE_PEAK.items():
            if all(word in name for word in part.split()):
                return {"flop_per_s": peaks[precision], "how": f"data sheet of {part}, dense {precision}"}
    size = _MATRIX[device.type]
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    matrix = torch.randn(size, size, device=device, dtype=dtype)
    best, began = 0.0, time.perf_counter()
    while time.perf_counter() - began < _MEASURED_SECONDS:
        started = time.perf_counter()
        product = matrix @ matrix
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = max(best, 2 * size**3 / (time.perf_counter() - started))
        del product
    return {"flop_per_s": best, "how": f"best {size} x {size} {precision} matrix product in this run"}


class PeakMemory:
    """Most bytes since `restart`: allocated by torch on CUDA, resident of this process on a CPU."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._base = device, 0
        self.how = "torch.cuda.max_memory_allocated" if device.type == "cuda" else "peak resident size of the process"

    def restart(self) -> None:
        """Forget the peak so far, where the system lets us."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            self._base = torch.cuda.memory_allocated(self._device)
            return
        try:
            _give_back_unused()
            Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
        except OSError:
            self.how = "peak resident size of the process since its start"
        self._base = self.read()

    def added(self) -> int:
        """Bytes of the peak beyond what was there at `restart`."""
        return max(0, self.read() - self._base)

    def read(self) -> int:
        """Bytes."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        try:
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        except OSError:
            pass
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _give_back_unused() -> None:
    """Have glibc return what is free, which counts as resident otherwise; other systems have no such call."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
