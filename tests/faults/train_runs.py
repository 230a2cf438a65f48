"""Runs of real training processes for the fault tests, and what their sample logs say."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.training.made import write_dataset

DATASETS = ["Alpha", "Beta"]


def write_data(root: Path) -> Path:
    write_dataset(root, "Alpha", 9)
    write_dataset(root, "Beta", 14, first=50)
    return root


class Ranks:
    """A process that forks the ranks of training runs: torch is imported once for all of them."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.train_rank"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            cwd=Path(__file__).parents[2],
        )
        self._count = itertools.count()

    def run(self, plan: dict[str, Any], world_size: int) -> list[int]:
        """Exit codes of the ranks."""
        folder = Path(plan["run_dir"])
        folder.mkdir(parents=True, exist_ok=True)
        whole = {"datasets": DATASETS, **plan, "meeting": str(folder / f"attempt-{next(self._count)}")}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"plan": whole, "world_size": world_size}) + "\n")
        self._process.stdin.flush()
        codes: list[int] = json.loads(self._process.stdout.readline())
        return codes

    def complete(self, plan: dict[str, Any], world_size: int) -> None:
        """A run that must reach its end."""
        codes = self.run(plan, world_size)
        logs = [file.read_text()[-1500:] for file in sorted(Path(plan["run_dir"]).glob("attempt-*.log"))]
        assert codes == [0] * world_size, "\n".join(logs)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


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


def final(run_dir: Path, what: str = "weights") -> dict[str, Tensor]:
    """`weights` or `average` that a run ended with."""
    found: dict[str, Tensor] = torch.load(run_dir / "final.pt", weights_only=True)[what]
    return found


def largest_difference(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)
