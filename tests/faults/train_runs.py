"""Runs of real training processes for the fault tests, and what their sample logs say."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.training.made import write_dataset

DATASETS = ["Alpha", "Beta"]
TIMEOUT_S = 240


def write_data(root: Path) -> Path:
    write_dataset(root, "Alpha", 9)
    write_dataset(root, "Beta", 14, first=50)
    return root


def run_ranks(plan: dict[str, Any], world_size: int) -> list[int]:
    """Exit codes of `world_size` processes of `tests.faults.train_rank`; when one fails the others are ended."""
    folder = Path(plan["run_dir"])
    folder.mkdir(parents=True, exist_ok=True)
    number = len(list(folder.glob("plan-*.json")))
    file = folder / f"plan-{number}.json"
    file.write_text(json.dumps({"datasets": DATASETS, **plan}))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = []
    for rank in range(world_size):
        said = (folder / f"plan-{number}-rank{rank}.log").open("w")
        place = {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "GROUP_RANK": "0",
            "WORLD_SIZE": str(world_size),
            "LOCAL_WORLD_SIZE": str(world_size),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, "-m", "tests.faults.train_rank", str(file)]
        processes.append(subprocess.Popen(command, env={**os.environ, **place}, stdout=said, stderr=said))
        said.close()
    deadline = time.monotonic() + TIMEOUT_S
    try:
        while any(process.poll() is None for process in processes):
            if any(process.poll() for process in processes) or time.monotonic() > deadline:
                break  # as a launcher does: one is lost, the rest is stopped
            time.sleep(0.05)
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
        codes = [process.wait() for process in processes]
    return codes


def said(plan: dict[str, Any]) -> str:
    """The end of what the ranks of all attempts wrote, for a message."""
    return "\n".join(file.read_text()[-1500:] for file in sorted(Path(plan["run_dir"]).glob("plan-*.log")))


def attempts(run_dir: Path) -> list[dict[int, list[str]]]:
    """Samples by step, ranks in order, of each attempt in the order of time: of what all its ranks have finished."""
    groups: list[tuple[int, dict[int, Path]]] = []
    for file in sorted((run_dir / "samples").glob("*.jsonl")):
        _, _, rank_name, _, world = file.stem.split("-")
        rank, world_size = int(rank_name.removeprefix("rank")), int(world)
        # files of an attempt are begun together, after those of the attempt before
        if not groups or groups[-1][0] != world_size or rank in groups[-1][1]:
            groups.append((world_size, {}))
        groups[-1][1][rank] = file
    found = []
    for world_size, files in groups:
        lines = {rank: [json.loads(line) for line in _whole_lines(file)] for rank, file in files.items()}
        by_step: dict[int, dict[int, list[str]]] = {}
        for rank, entries in lines.items():
            for entry in entries:
                by_step.setdefault(entry["step"], {})[rank] = entry["sample_ids"]
        found.append(
            {
                step: [sample for rank in sorted(parts) for sample in parts[rank]]
                for step, parts in sorted(by_step.items())
                if len(parts) == world_size
            }
        )
    return found


def _whole_lines(file: Path) -> list[str]:
    return [line for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")]


def lineage(found: list[dict[int, list[str]]]) -> dict[int, list[str]]:
    """What the final weights have seen: an attempt counts up to where the next one went on from."""
    kept: dict[int, list[str]] = {}
    for steps in found:
        if steps:
            first = min(steps)
            kept = {step: samples for step, samples in kept.items() if step < first}
            kept.update(steps)
    return kept


def final(run_dir: Path) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = torch.load(run_dir / "final.pt", weights_only=True)["weights"]
    return weights


def largest_difference(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)
