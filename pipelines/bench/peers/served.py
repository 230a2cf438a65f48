"""What the peers share: a pool of processes that is up before the clock runs, and jobs as lines of JSON.

A job is {"cases": [{"id", "image", "labels": [file…]}], "out": folder}; the answer {"samples": count}.
Run by the interpreter of `.venv-bench`, never imported by the project.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any


def serve(convert: Callable[[Path, dict[str, Any]], int], prepare: Callable[[], None], processes: int = 2) -> None:
    """Answer jobs from standard input until it closes; `convert(out, case)` returns how many samples it wrote."""
    with multiprocessing.get_context("fork").Pool(processes, initializer=prepare) as pool:
        _say({"ready": True})
        for line in sys.stdin:
            job = json.loads(line)
            out = Path(job["out"])
            out.mkdir(parents=True)
            _say({"samples": sum(pool.imap_unordered(partial(convert, out), job["cases"]))})


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
