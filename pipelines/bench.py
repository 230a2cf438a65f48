"""`make bench`: ingest through Ray against a plain loop, on the mirror's datasets or the phantoms; prints JSON.

Nothing is cached: every run builds into an empty folder. The manifests must be equal, else it fails.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from infra.compute import ray_map, ray_session
from infra.errors import CheckFailed
from infra.settings import load_settings
from pipelines import plan
from pipelines.workspace import pseudonym_key
from preprocessing.build import build_dataset
from preprocessing.cards import load_card
from preprocessing.sources import scan

LARGEST = 5  # datasets by cases would need a build first; by bytes of their raw files is close enough


def main() -> None:
    """Measure and print one JSON document."""
    settings = load_settings()
    with tempfile.TemporaryDirectory(prefix="sf-bench-") as folder:
        state = Path(folder)
        roots = plan.locate_datasets(plan.project_params()["datasets"], state, settings, with_phantoms=True)
        scanned = {name: scan(Path(one["path"]), state / f"{name}.json") for name, one in roots.items()}
        sizes = {name: sum(int(line["bytes"]) for line in files) for name, files in scanned.items()}
        chosen = sorted(sizes, key=lambda name: -sizes[name])[:LARGEST]
        with ray_session(state):
            list(ray_map(abs, range(2 * settings.cpus)))  # workers are up before the clock runs
            rows = [_measure(name, roots[name], scanned[name], state) for name in chosen]
    json.dump({"cpus": settings.cpus, "datasets": rows}, sys.stdout, indent=1)
    sys.stdout.write("\n")


def _measure(name: str, root: dict[str, str], files: list[Any], state: Path) -> dict[str, Any]:
    plain, first = _build(name, root, files, state / "plain" / name, map)
    ray, second = _build(name, root, files, state / "ray" / name, ray_map)
    if first["manifest_digest"] != second["manifest_digest"]:
        msg = f"{name}: the plain loop and Ray made different manifests"
        raise CheckFailed(msg)
    cases = first["counts"]["cases_found"]
    return {"dataset": name, "cases": cases, "plain_s": plain, "ray_s": ray, "speed_up": round(plain / ray, 2)}


def _build(
    name: str, root: dict[str, str], files: list[Any], out: Path, map_cases: Callable[..., Any]
) -> tuple[float, dict[str, Any]]:
    params = {key: plan.project_params()[key] for key in ("harmonize", "shards", "splits")}
    begun = time.monotonic()
    built = build_dataset(
        load_card(name),
        Path(root["path"]),
        files,
        out,
        params,
        pseudonym_key=pseudonym_key(load_settings()),
        case_cache=None,
        map_cases=map_cases,
        source_kind=root["kind"],
    )
    return round(time.monotonic() - begun, 2), built


if __name__ == "__main__":
    main()
