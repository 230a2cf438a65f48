"""Samples a second, ours and the peers', in one run: interleaved repetitions, all on files in the page cache."""

from __future__ import annotations

import statistics
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from infra.compute import ray_session
from infra.settings import Settings
from pipelines.bench import contestants
from pipelines.bench.contestants import Contestant, Ours
from pipelines.bench.inputs import Suite

PROCESSES = 2
# What is asked of the median ratio, of a peer at the images' own size and resized: suite -> tool -> at least.
TARGETS = {"tiny": {"monai": 3.0, "loop": 2.0}, "large": {"monai": 3.0, "loop": 2.0}, "flat": {"loop": 1.3}}


def measure(suites: list[Suite], python: Path, scratch: Path, repetitions: int) -> list[dict[str, Any]]:
    """Every contestant on every suite, `repetitions` times after one that is not counted.

    Returns a row a suite and contestant: {"suite", "title", "contestant", "samples", "seconds": […],
    "samples_per_s", "low", "high", "bytes", "ratio", "ratio_low", "ratio_high", "target", "met"}. A ratio is
    ours over the peer's speed in the same repetition.
    """
    ours = Ours()
    rows: list[dict[str, Any]] = []
    with ray_session(scratch / "state", Settings(num_cpus=PROCESSES)):
        for suite in suites:
            with ExitStack() as stack:
                field = [
                    Contestant("ours", "Segfoundry: ingest through Ray", ours.run, is_ours=True),
                    # one set of digests: both ways must make the same manifest
                    Contestant("plain", "Segfoundry: one process", Ours(map, ours.digests).run, is_ours=True),
                    *_peers(suite, python, stack),
                ]
                rows += _rows(suite, field, _interleaved(suite, field, scratch, repetitions))
    return rows


def _peers(suite: Suite, python: Path, stack: ExitStack) -> list[Contestant]:
    loop = "SimpleITK + OpenCV loop" if suite.kind == "volume" else "OpenCV loop"
    found = []
    for name, script, title in (
        ("monai", "monai_slices.py", "MONAI transforms, a .npy a sample"),
        ("loop", "opencv_loop.py", f"{loop}, a PNG a sample"),
    ):
        for size in (0, suite.side_px):
            resized = f", resized to {size} × {size}" if size else ", own size"
            run = stack.enter_context(contestants.peer(python, script, suite.kind, "--resize", str(size)))
            found.append(Contestant(f"{name}{size or ''}", title + resized, run, tool=name))
    return found


def _interleaved(
    suite: Suite, field: list[Contestant], scratch: Path, repetitions: int
) -> dict[str, list[dict[str, Any]]]:
    runs: dict[str, list[dict[str, Any]]] = {one.name: [] for one in field}
    for repetition in range(repetitions + 1):
        for one in field if repetition % 2 else reversed(field):  # nobody always follows the same neighbour
            out = contestants.emptied(scratch / "out")
            begun = time.monotonic()
            samples = one.run(suite, out)
            seconds = time.monotonic() - begun
            sys.stderr.write(f"{suite.name} {repetition} {one.name}: {samples} samples in {seconds:.2f} s\n")
            if repetition:
                size = sum(path.stat().st_size for path in _kept(one, out))
                runs[one.name].append({"samples": samples, "seconds": seconds, "bytes": size})
    contestants.emptied(scratch / "out")
    return runs


def _kept(one: Contestant, out: Path) -> list[Path]:
    """The files that a contestant leaves for training; the case cache is ours alone and may be deleted."""
    folder = out / "data" if one.is_ours else out / "samples"
    return [path for path in folder.rglob("*") if path.is_file()]


def _rows(suite: Suite, field: list[Contestant], runs: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    ours = [one["samples"] / one["seconds"] for one in runs["ours"]]
    rows = []
    for one in field:
        speeds = [run["samples"] / run["seconds"] for run in runs[one.name]]
        ratios = [mine / theirs for mine, theirs in zip(ours, speeds, strict=True)]
        ratio, target = statistics.median(ratios), TARGETS[suite.name].get(one.tool)
        rows.append(
            {
                "suite": suite.name,
                "title": suite.title,
                "contestant": one.name,
                "contestant_title": one.title,
                "is_ours": one.is_ours,
                "samples": runs[one.name][-1]["samples"],
                "seconds": [round(run["seconds"], 3) for run in runs[one.name]],
                "samples_per_s": statistics.median(speeds),
                "low": min(speeds),
                "high": max(speeds),
                "bytes": runs[one.name][-1]["bytes"],
                "ratio": ratio,
                "ratio_low": min(ratios),
                "ratio_high": max(ratios),
                "target": target,
                "met": None if target is None else ratio >= target,
            }
        )
    return rows
