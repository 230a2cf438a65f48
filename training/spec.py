"""What a rank is told. Needs no torch, so that whoever launches a run need not load it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.recipes import Recipe

PROGRESS_FILE = "progress.json"
CONFIG, WEIGHTS, START, TOKENIZER = "config.json", "model.safetensors", "start.safetensors", "tokenizer"
"""Files of a model folder."""


@dataclass(frozen=True)
class FitSpec:
    """What a rank needs to know; plain values, so that it travels to other machines."""

    recipe: Recipe
    data_root: str
    datasets: list[str]
    run_dir: str  # storage that all ranks share
    start: str = ""  # model folder to start from; empty: our own initialisation


def start_config(start: str) -> dict[str, Any]:
    """`sam3` and `image_size` of a start folder's config.json."""
    config: dict[str, Any] = json.loads((Path(start) / CONFIG).read_text(encoding="utf-8"))
    return config
