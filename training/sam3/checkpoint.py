"""SAM3 weights in and out: every published layout, strictly, with a report of what was loaded.

Layouts: the official one (`sam3.pt` with `detector.` and `tracker.`, Medical-SAM3's `checkpoint.pt` without a
prefix, with or without optimiser state) and transformers' (`detector_model.` in the video model).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers.models.sam3.configuration_sam3 import Sam3Config

from infra.errors import DataError
from infra.storage import atomic_path, read_json, sha256_file, write_json
from training.sam3.layout import rotary_tables, to_official
from training.sam3.model import PromptableSam3
from training.sam3.reading import read_tensors
from training.sam3.source import image_size_of, locate, read_config, sam3_config, with_image_size
from training.sam3.strict import LoadReport, config_of, detect_layout, fitted, rotary_sizes, sort_out
from training.spec import CONFIG, WEIGHTS


@dataclass
class Checkpoint:
    """A checkpoint that fits its config: transformers' names, values still in the mapped file."""

    config: Sam3Config
    state: dict[str, Tensor]
    report: LoadReport


def open_checkpoint(
    source: str | Path, *, config: Sam3Config | None = None, image_size: int | None = None, digest: bool = False
) -> Checkpoint:
    """Open weights of any layout and hold them against a config, strictly.

    Args:
        source: as `locate` takes it.
        config: of the model that the weights are for; else the config.json beside them, else what shapes tell.
        image_size: side in pixels of the input, where it is another than the config's.
        digest: also compute the SHA-256, which reads the file once more.

    Raises:
        DataError: a key is missing, unexpected, wrongly shaped or no float; all of them are listed.
    """
    located = locate(source)
    found = sort_out(read_tensors(located), source)
    report = found.report
    if config is None:
        stored = read_config(located)
        if stored is None:
            stored = config_of(found)
            report.notes.append("no config.json beside it: sizes read from the shapes")
        if image_size is not None and image_size != image_size_of(stored):
            stored = with_image_size(stored, image_size)
        config = Sam3Config(**stored)
    state = fitted(config, found)
    report.bytes = located.bytes
    report.sha256 = located.sha256() if digest else ""
    return Checkpoint(config, state, report)


def load_into(model: PromptableSam3, source: str | Path, *, digest: bool = False) -> LoadReport:
    """Copy a checkpoint's weights into `model`, strictly (see `open_checkpoint`).

    The file is mapped and copied tensor by tensor: it needs no second copy in memory.
    """
    opened = open_checkpoint(source, config=model.config, digest=digest)
    _copy(model, opened.state)
    return opened.report


def _copy(model: PromptableSam3, state: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, value in model.state_dict().items():
            value.copy_(state[name])


def describe(source: str | Path) -> dict[str, Any]:
    """Sam3Config arguments of a checkpoint: from the config.json beside it, else from its shapes."""
    located = locate(source)
    stored = read_config(located)
    if stored is not None:
        return stored
    return config_of(sort_out(read_tensors(located), source))


def load_checkpoint(
    source: str | Path, *, image_size: int | None = None, digest: bool = True
) -> tuple[PromptableSam3, LoadReport]:
    """Model of a checkpoint in evaluation mode, for `image_size` pixels where given, and the report."""
    opened = open_checkpoint(source, image_size=image_size, digest=digest)
    model = PromptableSam3(opened.config)
    _copy(model, opened.state)
    model.eval()
    return model, opened.report


def save_weights(path: Path, state: Mapping[str, Tensor]) -> str:
    """Write tensors as safetensors, atomically; return the file's SHA-256."""
    with atomic_path(path) as temporary:
        ordered = {name: state[name].detach().cpu().contiguous() for name in sorted(state)}
        save_file(ordered, temporary, metadata={"format": "pt"})
    return sha256_file(path)


def save_transformers(folder: Path, config: Sam3Config, state: Mapping[str, Tensor]) -> str:
    """Write a folder that transformers' `Sam3Model.from_pretrained` reads; return the weights' SHA-256."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / CONFIG, {**config.to_dict(), "architectures": ["Sam3Model"]})
    return save_weights(folder / WEIGHTS, state)


def save_official(path: Path, config: Sam3Config, state: Mapping[str, Tensor], base: str | Path | None = None) -> str:
    """Write the official layout as `torch.save` of one flat dict; return the file's SHA-256.

    Args:
        path: the file.
        config: sizes, from which the rotary tables follow.
        state: weights by transformers' names; written under `detector.`.
        base: an official checkpoint whose other tensors (tracker, point prompts, class row) are kept, as they
            are. Without it the class row is zero, and point prompts, which this model has not, are left out.
    """
    tensors = {f"detector.{name}": value for name, value in to_official(state).items()}
    tensors |= {f"detector.{name}": value for name, value in rotary_tables(**rotary_sizes(config)).items()}
    if base is not None:
        tensors = dict(_kept_from(base, tensors))
    with atomic_path(path) as temporary:
        torch.save({name: _alone(value) for name, value in tensors.items()}, temporary)
    return sha256_file(path)


def _alone(value: Tensor) -> Tensor:
    """The tensor with a storage of its own: torch.save writes whole storages, a mapped file's too."""
    value = value.detach().cpu().contiguous()
    return value if value.untyped_storage().nbytes() == value.nbytes else value.clone()


def _kept_from(base: str | Path, ours: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    read = read_tensors(locate(base))
    layout, prefix = detect_layout(read.tensors, Path(base).name)
    if layout != "official":
        msg = f"{Path(base).name}: expected an official checkpoint to take the rest from, found transformers' names"
        raise DataError(msg)
    for name, value in read.tensors.items():
        key = f"detector.{name.removeprefix(prefix)}" if name.startswith(prefix) else name
        mine = ours.pop(key, None)
        if mine is not None and key.endswith(".trunk.pos_embed"):
            mine = torch.cat([value[:, :1].to(mine.dtype), mine[:, 1:]], dim=1)
        yield key, value if mine is None else mine
    yield from ours.items()


def load_weights(model: PromptableSam3, path: Path) -> None:
    """Load a file of weights strictly into a model of its sizes."""
    load_into(model, path)


def build_model(config: dict[str, Any]) -> PromptableSam3:
    """The model that a `config.json` describes, with weights as transformers initialises them."""
    return PromptableSam3(Sam3Config(**sam3_config(config)))


def load_model(folder: Path, weights: str = WEIGHTS) -> PromptableSam3:
    """Model of a folder, in evaluation mode."""
    model = build_model(read_json(folder / CONFIG))
    load_weights(model, folder / weights)
    model.eval()
    return model
