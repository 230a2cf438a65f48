"""Who is measured: our ingest through Ray, and the peers, each a process that is up before the clock runs."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.compute import ray_map
from infra.errors import CheckFailed, ServiceError
from pipelines import plan
from pipelines.bench.inputs import Suite
from preprocessing.build import build_dataset
from preprocessing.inventory import scan

PEERS = Path(__file__).parent / "peers"
KEY = b"bench"


@dataclass
class Contestant:
    """`run(suite, out)` writes every sample of a suite below the empty folder `out` and returns their number."""

    name: str
    title: str
    run: Callable[[Suite, Path], int]
    is_ours: bool = False
    tool: str = ""  # which public tool a peer is


@dataclass
class Ours:
    """Scan, hash, check, harmonize, shards, manifest, tables, page: the whole of `segfoundry data ingest` but DVC."""

    map_cases: Callable[..., Any] = ray_map
    digests: dict[tuple[str, str], str] = field(default_factory=dict)

    def run(self, suite: Suite, out: Path) -> int:
        """Ingest every part of `suite` with nothing remembered; every run must give the same manifest."""
        samples = 0
        for part in suite.parts:
            report = build_dataset(
                part.card,
                part.root,
                scan(part.root, out / "hashes.json"),
                out / "data" / part.card.name,
                build_params(),
                pseudonym_key=KEY,
                case_cache=out / "cases",
                map_cases=self.map_cases,
                source_kind="mirror",
            )
            place = (suite.name, part.card.name)
            if self.digests.setdefault(place, report["manifest_digest"]) != report["manifest_digest"]:
                msg = f"{part.card.name}: two runs over the same files made different manifests"
                raise CheckFailed(msg)
            samples += report["counts"]["samples"]
        return samples


def build_params() -> dict[str, Any]:
    """The sections of the project's own `params.yaml` that a build needs."""
    return {name: plan.project_params()[name] for name in ("harmonize", "shards", "splits")}


@contextmanager
def peer(python: Path, script: str, *arguments: str) -> Iterator[Callable[[Suite, Path], int]]:
    """A peer that is up and waits for jobs; its standard error goes to ours."""
    command = [str(python), str(PEERS / script), *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        answers, jobs = process.stdout, process.stdin

        def answer() -> dict[str, Any]:
            line = answers.readline()
            if not line:
                msg = f"{script} ended with exit code {process.wait()} before it answered; its own words are above"
                raise ServiceError(msg)
            value: dict[str, Any] = json.loads(line)
            return value

        def run(suite: Suite, out: Path) -> int:
            cases = [case for part in suite.parts for case in part.pairs()]
            jobs.write(json.dumps({"cases": cases, "out": str(out / "samples")}) + "\n")
            jobs.flush()
            return int(answer()["samples"])

        answer()
        try:
            yield run
        finally:
            jobs.close()


def emptied(folder: Path) -> Path:
    """The folder, empty."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
