"""How long audits take over a workspace of many rows: `python -m pipelines.bench.audits --rows 10000000 --folder DIR`.

The workspace is real to the commands: git, tags, `dvc.lock` and objects in DVC's cache; its two data versions hold
made-up manifests (`pipelines.bench.manifests`), of which every 1,000th row differs. Each question is a whole command in
a process of its own, start of Python included. The first includes holding each manifest against its MD5.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from infra import repository
from infra.dvc import DataRepo
from infra.storage import write_bytes, write_text
from pipelines.bench.manifests import SLICES, write
from pipelines.workspace import Workspace
from preprocessing.schema import DATASET_FILE, MANIFEST_FILE

DATASET = "made_up"  # as the manifests say
LIMIT_S = 600


def make_workspace(root: Path, rows: int) -> Workspace:
    """A workspace with `data-v1` and `data-v2` of one dataset of so many rows each."""
    place = Workspace.prepare(root)
    for number in (1, 2):
        manifest = root / ".segfoundry" / f"manifest-{number}.parquet"
        write(manifest, rows, changed=number == 2)
        told = {
            "dataset": DATASET,
            "manifest_digest": hashlib.sha256(str(number).encode()).hexdigest(),
            "licence": {"spdx": "CC0-1.0"},
            "counts": {"samples": rows},
        }
        files = {MANIFEST_FILE: _keep_file(place, manifest), DATASET_FILE: _keep(place, json.dumps(told).encode())}
        listing = json.dumps([{"md5": md5, "relpath": name} for name, md5 in sorted(files.items())]).encode()
        folder = f"{_keep(place, listing, '.dir')}.dir"
        outs = [{"path": f"data/{DATASET}", "hash": "md5", "md5": folder}]
        lock = {"schema": "2.0", "stages": {f"ingest@{DATASET}": {"cmd": "made up", "outs": outs}}}
        write_text(root / "dvc.lock", yaml.safe_dump(lock))
        repository.commit_paths(root, ["dvc.lock", "dvc.yaml", "params.yaml"], f"data-v{number}")
        repository.git(root, "tag", "--annotate", f"data-v{number}", "--message", "made up")
    return place


def _object(place: Workspace, md5: str, ending: str = "") -> Path:
    return place.root / ".dvc" / "cache" / "files" / "md5" / md5[:2] / f"{md5[2:]}{ending}"


def _keep(place: Workspace, payload: bytes, ending: str = "") -> str:
    md5 = hashlib.md5(payload, usedforsecurity=False).hexdigest()
    write_bytes(_object(place, md5, ending), payload)
    return md5


def _keep_file(place: Workspace, path: Path) -> str:
    with path.open("rb") as handle:
        md5 = hashlib.file_digest(handle, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    target = _object(place, md5)
    target.parent.mkdir(parents=True, exist_ok=True)
    path.rename(target)
    return md5


def rows_of(place: Workspace) -> int:
    """Rows of a dataset version of a workspace that was made before."""
    told = json.loads(DataRepo(place.root).read_bytes_at(f"data/{DATASET}/{DATASET_FILE}", "data-v1"))
    return int(told["counts"]["samples"])


def measure(place: Workspace, rows: int, repetitions: int) -> list[dict[str, Any]]:
    """{"question", "seconds": […], "user_seconds": […], "exit_codes"} for each question."""
    case = f"case{rows // SLICES // 2:08d}"
    questions = {
        "audit case, first time (MD5 of each manifest)": (["case", f"{DATASET}/{case}"], 1),
        "audit case DATASET/CASE": (["case", f"{DATASET}/{case}"], repetitions),
        "audit case, unknown key": (["case", f"{case[:-1]}x"], repetitions),
        "audit data data-v1 data-v2": (["data", "data-v1", "data-v2"], repetitions),
    }
    found = []
    for title, (arguments, times) in questions.items():
        runs = [_run(place, arguments) for _ in range(times)]
        seconds, used = (sorted(one[part] for one in runs) for part in (0, 2))
        codes = sorted({one[1] for one in runs})
        found.append({"question": title, "seconds": seconds, "user_seconds": used, "exit_codes": codes})
    return found


def _run(place: Workspace, arguments: list[str]) -> tuple[float, int, float]:
    """Wall seconds, exit code and CPU seconds (user and system) of one command."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    command = [sys.executable, "-m", "pipelines", "audit", *arguments, "--workspace", str(place.root), "--json"]
    before, begun = os.times(), time.monotonic()
    done = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, timeout=LIMIT_S, check=False)
    wall, after = time.monotonic() - begun, os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return round(wall, 2), done.returncode, round(used, 2)


def main() -> None:
    """Make the workspace, or use the one that is there with the rows that it has; ask, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path, required=True, help="where the workspace goes; kept, and used again")
    parser.add_argument("--repetitions", type=int, default=3)
    asked = parser.parse_args()
    if (asked.folder / "dvc.lock").is_file():
        place, rows = Workspace(asked.folder), rows_of(Workspace(asked.folder))
    else:
        place, rows = make_workspace(asked.folder, asked.rows), asked.rows
    lines = ["| question | rows | seconds | CPU seconds | exit code |", "| --- | ---: | ---: | ---: | ---: |"]
    for one in measure(place, rows, asked.repetitions):
        said = [" ".join(f"{value:.1f}" for value in one[key]) for key in ("seconds", "user_seconds")]
        codes = ", ".join(map(str, one["exit_codes"]))
        lines.append(f"| {one['question']} | {rows:,} | {said[0]} | {said[1]} | {codes} |")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
