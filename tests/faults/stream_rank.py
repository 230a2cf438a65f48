"""One rank's reader as a process of its own, for tests that kill it: `python -m tests.faults.stream_rank JOB`.

JOB is JSON: {"spec": {stream, root, datasets, run_dir, steps, every, workers, threads, pause_s}, "rank", "world",
"state", "out"}.
A line of `out` is {"step", "ids"} after the step is done; `<out>.state` is the stream's state every `every` steps.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from training.fit import open_stream, prepare
from training.recipes import Recipe, tiny
from training.spec import FitSpec, LoaderSettings
from training.stream import Batch, BatchStream


def recipe_of(kind: str, steps: int) -> Recipe:
    """Small pictures, one dataset's epoch in the order of the dataset alone."""
    return replace(
        tiny(),
        stream=kind,
        image_size=16,
        mask_size=8,
        global_batch=8,
        steps=steps,
        temperature=1.0,
        most_visits=0,
        prompts_per_image=1,
        shuffle_samples=64,
    )


def loader_of(stream: BatchStream, workers: int) -> DataLoader[Batch]:
    """As `fit` makes it."""
    return DataLoader(stream, batch_size=None, num_workers=workers)


def main(job: dict[str, Any]) -> None:
    said = job["spec"]
    spec = FitSpec(
        recipe_of(said["stream"], said["steps"]),
        said["root"],
        said["datasets"],
        said["run_dir"],
        loader=LoaderSettings(workers=said["workers"], threads=said["threads"], ahead=2),
    )
    prepare(spec, "train", 0, 1)
    stream = open_stream(spec, "train", job["rank"], job["world"])
    if job["state"]:
        stream.load_state_dict(job["state"])
    out = Path(job["out"])
    with out.open("a") as lines:
        for step, batch in enumerate(loader_of(stream, said["workers"]), stream.first_step + 1):
            time.sleep(said["pause_s"])
            lines.write(json.dumps({"step": step, "ids": batch.sample_ids}) + "\n")
            lines.flush()
            if step % said["every"] == 0:
                part = out.with_suffix(".part")
                part.write_text(json.dumps(stream.state_dict(step)))
                os.replace(part, out.with_suffix(".state"))
            if step == said["steps"]:
                return


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
