"""The stream keeps its place: any number of ranks and loader workers, killed and resumed on more or fewer."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch

from infra.errors import DataError
from tests.faults.stream_rank import loader_of, recipe_of
from tests.training.made import write_dataset
from training.fit import prepare, wording_of
from training.recipes import Recipe
from training.sam3.tokenizer import PromptTokenizer
from training.shard_samples import ShardSamples
from training.spec import FitSpec, LoaderSettings
from training.store import ShardStore
from training.stream import Batch, BatchStream

SOAK = bool(os.environ.get("SEGFOUNDRY_SOAK"))
SAMPLES, BATCH = 280, 8
STEPS = SAMPLES // BATCH  # an epoch
EVERY = 10  # steps between checkpoints
KILLS = {"step 1": 1, "checkpoint - 1": 19, "checkpoint": 20, "checkpoint + 1": 21, "last step": STEPS}
WORLDS = [(1, 1), (2, 2), (4, 2), (2, 4)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_dataset(root, "Alpha", SAMPLES, shards=6, rows_a_group=64)
    return root


@lru_cache(maxsize=1)
def _tokenizer() -> PromptTokenizer:
    return PromptTokenizer.from_installed()


def _stream(root: Path, rank: int, world: int, *, threads: int = 0, recipe: Recipe | None = None) -> BatchStream:
    store = ShardStore(str(root), root.parent / f"{root.name}-scratch", 1 << 30)
    return BatchStream(
        ShardSamples(store, ["Alpha"], "train", buffer_bytes=1 << 30),
        wording_of(root, ["Alpha"]),
        recipe or recipe_of("shards", STEPS),
        _tokenizer(),
        rank=rank,
        world_size=world,
        loader=LoaderSettings(threads=threads),
    )


def _epoch(
    root: Path, world: int, workers: int, *, state: dict[str, Any] | None = None, last: int = STEPS, threads: int = 0
) -> Iterator[list[Batch]]:
    """Batches of all ranks, step by step, up to step `last`."""
    streams = [_stream(root, rank, world, threads=threads) for rank in range(world)]
    for stream in streams:
        if state is not None:
            stream.load_state_dict(state)
    begun = [iter(loader_of(stream, workers)) for stream in streams]
    for _ in range(streams[0].first_step, last):
        yield [next(loader) for loader in begun]


def _ids(batches: Iterator[list[Batch]]) -> list[str]:
    return [sample for step in batches for batch in step for sample in batch.sample_ids]


@pytest.fixture(scope="module")
def undisturbed(root: Path) -> list[str]:
    found = _ids(_epoch(root, 1, 0))
    assert Counter(found) == {f"Alpha/{number:03d}": 1 for number in range(SAMPLES)}
    return found


_GRID = list(itertools.product((1, 2, 3, 4, 8), (0, 2, 4)))
_GRID_IN_CI = [(1, 2), (3, 0), (4, 2), (8, 0)]


@pytest.mark.parametrize(("world", "workers"), _GRID if SOAK else _GRID_IN_CI)
def test_the_order_is_the_same_for_any_world_and_workers(
    root: Path, undisturbed: list[str], world: int, workers: int
) -> None:
    assert _ids(_epoch(root, world, workers)) == undisturbed


_FAULTS = list(itertools.product(KILLS, WORLDS, (0, 2)))
_FAULTS_IN_CI = [(kill, WORLDS[number % 4], 0) for number, kill in enumerate(KILLS)] + [
    ("checkpoint - 1", (4, 2), 2),
    ("checkpoint + 1", (2, 4), 2),
]


@pytest.mark.parametrize(("kill", "worlds", "workers"), _FAULTS if SOAK else _FAULTS_IN_CI)
def test_killed_and_resumed_no_sample_is_lost_or_repeated(
    root: Path, undisturbed: list[str], kill: str, worlds: tuple[int, int], workers: int
) -> None:
    trained: list[str] = []
    state: dict[str, Any] | None = None
    kept = 0  # samples that the checkpoint's model has seen
    for step, batches in enumerate(_epoch(root, worlds[0], workers, last=KILLS[kill]), 1):
        trained += [sample for batch in batches for sample in batch.sample_ids]
        if step % EVERY == 0 or step == STEPS:
            state, kept = _stream(root, 0, 1).state_dict(step), len(trained)
            assert len(json.dumps(state)) < 400
    resumed = _ids(_epoch(root, worlds[1], workers, state=state))
    assert trained[:kept] + resumed == undisturbed


# (stream, world before and after, loader workers, decode threads, killed after step)
_KILLED = [("shards", (2, 1), 2, 0, 7), ("shards", (1, 2), 0, 2, 4), ("prepared", (2, 2), 2, 0, 5)]


@pytest.mark.parametrize(("kind", "worlds", "workers", "threads", "after"), _KILLED if SOAK else _KILLED[:1])
def test_killed_processes_go_on_where_the_checkpoint_was(
    root: Path, tmp_path: Path, kind: str, worlds: tuple[int, int], workers: int, threads: int, after: int
) -> None:
    spec = {
        "stream": kind,
        "root": str(root),
        "datasets": ["Alpha"],
        "run_dir": str(tmp_path / "run"),
        "steps": STEPS,
        "every": 3,
        "workers": workers,
        "threads": threads,
        "pause_s": 0.05,  # a step's time, so that the run is not over before it is killed
    }
    first = [tmp_path / f"first-{rank}.jsonl" for rank in range(worlds[0])]
    running = [_start(spec, rank, worlds[0], None, out) for rank, out in enumerate(first)]
    deadline = time.monotonic() + 120
    while any(len(_lines(out)) < after for out in first):
        assert time.monotonic() < deadline, "the ranks did not come to the step"
        time.sleep(0.005)
    for process in running:
        process.send_signal(signal.SIGKILL)
    for process in running:
        assert process.wait() == -signal.SIGKILL
    # what a synchronous checkpoint would hold: the latest step that every rank had noted
    states = [json.loads(out.with_suffix(".state").read_text()) for out in first]
    state = min(states, key=lambda each: int(each["position"]))
    second = [tmp_path / f"second-{rank}.jsonl" for rank in range(worlds[1])]
    for process in [_start(spec, rank, worlds[1], state, out) for rank, out in enumerate(second)]:
        assert process.wait(timeout=120) == 0
    kept = state["position"] // BATCH
    ids = _merged(first)[:kept] + _merged(second)
    assert len(ids) == STEPS
    assert Counter(sample for step in ids for sample in step) == {f"Alpha/{number:03d}": 1 for number in range(SAMPLES)}


def _start(
    spec: dict[str, Any], rank: int, world: int, state: dict[str, Any] | None, out: Path
) -> subprocess.Popen[bytes]:
    job = {"spec": spec, "rank": rank, "world": world, "state": state, "out": str(out)}
    return subprocess.Popen([sys.executable, "-m", "tests.faults.stream_rank", json.dumps(job)])


def _lines(out: Path) -> list[dict[str, Any]]:
    """Complete lines: a killed process may leave half of one."""
    text = out.read_text() if out.is_file() else ""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def _merged(files: list[Path]) -> list[list[str]]:
    """Sample ids of each step over the ranks."""
    return [
        [sample for line in lines for sample in line["ids"]]
        for lines in zip(*(_lines(file) for file in files), strict=False)
    ]


@pytest.mark.parametrize("threads", [0, 3])
def test_prompts_and_augmentation_depend_on_the_position_alone(root: Path, threads: int) -> None:
    wanted = {
        sample: image for [batch] in _epoch(root, 1, 0, last=6) for sample, image in zip(*_shown(batch), strict=True)
    }
    for batches in _epoch(root, 4, 2, last=6, threads=threads):
        for batch in batches:
            for sample, image in zip(*_shown(batch), strict=True):
                mine = wanted.pop(sample)
                assert torch.equal(mine[0], image[0])
                assert mine[1:] == image[1:]
    assert not wanted


def _shown(batch: Batch) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Per image: pixels after augmentation, token ids, box labels and the sum of the maps of its prompts."""
    found = []
    for number, pixels in enumerate(batch.pixel_values):
        own = (batch.image_of_prompt == number).nonzero().flatten()
        words = batch.input_ids[batch.text_of_prompt[own]].tolist()
        found.append(
            (pixels, words, batch.box_labels[own].tolist(), batch.targets.semantic[own].flatten(1).sum(1).tolist())
        )
    return batch.sample_ids, found


def test_going_on_with_other_data_or_another_order_is_refused(root: Path, tmp_path: Path) -> None:
    state = _stream(root, 0, 1).state_dict(10)
    write_dataset(tmp_path, "Alpha", SAMPLES, first=1, shards=6)
    with pytest.raises(DataError, match=r"stream: digest of the shards: expected .* as in the checkpoint"):
        _stream(tmp_path, 0, 1).load_state_dict(state)
    changes = {"seed": "seed", "shuffle_samples": "mixed and shuffled"}
    for name, said in changes.items():
        other = _stream(root, 0, 1, recipe=_with(name, 99))
        with pytest.raises(DataError, match=said):
            other.load_state_dict(state)
    with pytest.raises(DataError, match="multiple of global_batch 7"):
        _stream(root, 0, 1, recipe=_with("global_batch", 7)).load_state_dict(state)
    # another learning rate is another run's business
    _stream(root, 0, 1, recipe=_with("learning_rate", 99)).load_state_dict(state)


def _with(name: str, value: Any) -> Recipe:
    from dataclasses import replace

    return replace(recipe_of("shards", STEPS), **{name: value})


def test_preparing_does_not_change_what_is_resumed(root: Path, tmp_path: Path) -> None:
    from training.fit import open_stream

    spec = FitSpec(recipe_of("prepared", STEPS), str(root), ["Alpha"], str(tmp_path))
    prepare(spec, "train", 0, 1)
    prepared = open_stream(spec, "train", 0, 1)
    with pytest.raises(DataError, match="kind of stream: expected shards as in the checkpoint, found prepared"):
        prepared.load_state_dict(_stream(root, 0, 1).state_dict(1))
