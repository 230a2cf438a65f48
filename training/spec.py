"""What a rank is told. Needs no torch, so that whoever launches a run need not load it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.recipes import Recipe

PROGRESS_FILE = "progress.json"
CONFIG, WEIGHTS, START, TOKENIZER = "config.json", "model.safetensors", "start.safetensors", "tokenizer"
"""Files of a model folder."""


@dataclass(frozen=True)
class LoaderSettings:
    """How batches are made ready. Nothing here changes what is in them."""

    threads: int = 0  # decode threads of each process that reads; 0: in the training loop itself
    workers: int = 0  # loader processes of each rank; threads do better where decoding releases the GIL
    ahead: int = 2  # batches each reading process keeps ready, where it has threads
    buffer_bytes: int = 1 << 30  # encoded samples a reading process holds, at most
    cache_dir: str = ""  # local copies of remote shards; empty: beside the run
    cache_bytes: int = 64 << 30


@dataclass(frozen=True)
class FitSpec:
    """What a rank needs to know; plain values, so that it travels to other machines."""

    recipe: Recipe
    data_root: str  # folder of dataset versions, or its fsspec URL
    datasets: list[str]
    run_dir: str  # storage that all ranks share
    start: str = ""  # weights to start from (training/sam3/source.py); empty: our own initialisation
    loader: LoaderSettings = field(default_factory=LoaderSettings)


def start_config(start: str) -> dict[str, Any]:
    """`sam3` and `image_size` of the weights that `train.start` names.

    From the config.json beside them; where an official checkpoint comes without one, from its shapes, and only then
    is torch loaded.
    """
    from training.sam3.source import image_size_of, locate, read_config

    sam3 = read_config(locate(start))
    if sam3 is None:
        from training.sam3.checkpoint import describe

        sam3 = describe(start)
    return {"sam3": sam3, "image_size": image_size_of(sam3)}


def start_identity(start: str) -> tuple[str, str]:
    """What `train.start` names, as every worker finds it (absolute where it is a path), and its SHA-256."""
    from training.sam3.source import locate

    located = locate(start)
    return str(Path(start).resolve()) if Path(start).exists() else start, located.sha256()
