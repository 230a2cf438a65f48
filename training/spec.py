"""What a rank is told. Needs no torch, so that whoever launches a run need not load it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.errors import UsageError
from infra.remote import is_remote
from training.recipes import Recipe

PROGRESS_FILE = "progress.json"
CONFIG, WEIGHTS, START, TOKENIZER = "config.json", "model.safetensors", "start.safetensors", "tokenizer"
"""Files of a model folder."""
ADAPTERS = "adapters"
"""Folder in it, of a run with LoRA: what was trained, in peft's layout, to be put on the start weights."""
STRATEGIES = ("auto", "ddp", "fsdp2")
# bytes of weights, gradients and AdamW's two moments in fp32, and of the average, per parameter
_STATE_BYTES = 20
_STATE_SHARE = 0.5  # of a device's memory: activations need the rest


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
class RunSettings:
    """How a run is spread over processes and kept. Nothing here changes what it computes."""

    strategy: str = "auto"  # ddp, fsdp2 or auto (`training.distributed`)
    checkpoints: str = ""  # folder or fsspec URL of this run's own; empty: below run_dir
    checkpoint_minutes: float = 0  # at most between checkpoints, beside every `checkpoint_every` steps; 0: no matter
    sample_log: bool = False  # write which samples each step saw to run_dir/samples


@dataclass(frozen=True)
class FitSpec:
    """What a rank needs to know; plain values, so that it travels to other machines."""

    recipe: Recipe
    data_root: str  # folder of dataset versions, or its fsspec URL
    datasets: list[str]
    run_dir: str  # storage that all ranks share
    start: str = ""  # weights to start from (training/sam3/source.py); empty: our own initialisation
    loader: LoaderSettings = field(default_factory=LoaderSettings)
    run: RunSettings = field(default_factory=RunSettings)
    tokenizer: str = (
        ""  # file or folder with CLIP's merges (`PromptTokenizer.find`), where open_clip_torch is not installed
    )

    @property
    def scratch(self) -> Path:
        """Machine-local folder for what was checked, and for copies of what is remote."""
        return Path(self.loader.cache_dir or Path(self.run_dir) / "cache")

    def folders(self) -> dict[str, Path]:
        """Local folder of each version's small files (`dataset.json`, …), copied where the root is remote."""
        if not is_remote(self.data_root):
            return {name: Path(self.data_root) / name for name in self.datasets}
        from training.store import ShardStore

        store = ShardStore(self.data_root, self.scratch, self.loader.cache_bytes)
        return {name: store.folder(name) for name in self.datasets}


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


def choose_strategy(recipe: Recipe, wanted: str, world_size: int, device_bytes: int, parameters: int) -> str:
    """`ddp` or `fsdp2`: as `wanted`, or for `auto` fsdp2 where a device would be half full of state alone.

    Args:
        recipe: its optimiser decides whether state can be divided at all.
        wanted: one of `STRATEGIES`.
        world_size: number of ranks.
        device_bytes: memory of one device; 0 for CPUs, which share theirs.
        parameters: of the model.
    """
    if wanted not in STRATEGIES:
        msg = f"params.yaml: train.strategy: expected one of {', '.join(STRATEGIES)}, found {wanted!r}"
        raise UsageError(msg)
    if wanted == "fsdp2" and recipe.optimiser != "adamw":
        msg = (
            f"params.yaml: train.strategy: fsdp2 expects a recipe with optimiser adamw, found {recipe.optimiser} "
            f"in recipe {recipe.name}: Muon needs whole matrices, and fsdp2 gives each rank some rows of them. "
            "Use train.strategy: ddp, or another recipe"
        )
        raise UsageError(msg)
    if wanted != "auto":
        return wanted
    too_much = device_bytes > 0 and parameters * _STATE_BYTES > _STATE_SHARE * device_bytes
    return "fsdp2" if too_much and world_size > 1 and recipe.optimiser == "adamw" else "ddp"
