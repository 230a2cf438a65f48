"""Model folders: `config.json` + safetensors + tokenizer. Nothing is ever unpickled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor
from transformers.models.sam3.configuration_sam3 import Sam3Config

from infra.errors import DataError
from infra.storage import read_json, sha256_file, write_bytes
from training.sam3.model import PromptableSam3
from training.spec import CONFIG, WEIGHTS


def save_weights(path: Path, state: dict[str, Tensor]) -> str:
    """Write tensors as safetensors, atomically; return the file's SHA-256."""
    write_bytes(path, save({name: value.contiguous() for name, value in sorted(state.items())}))
    return sha256_file(path)


def load_weights(model: PromptableSam3, path: Path) -> None:
    """Load strictly: a missing, unexpected or wrongly shaped key is a DataError that lists them."""
    found = load_file(path)
    wanted = model.state_dict()
    missing = sorted(wanted.keys() - found.keys())
    unexpected = sorted(found.keys() - wanted.keys())
    shapes = sorted(
        f"{name}: expected {tuple(wanted[name].shape)}, found {tuple(found[name].shape)}"
        for name in wanted.keys() & found.keys()
        if wanted[name].shape != found[name].shape
    )
    if missing or unexpected or shapes:
        parts = f"missing {missing}, unexpected {unexpected}, wrong shape {shapes}"
        msg = f"{path.name} does not fit its config.json: {parts}"
        raise DataError(msg)
    with torch.no_grad():
        model.load_state_dict(found, strict=True)


def build_model(config: dict[str, Any]) -> PromptableSam3:
    """The model that a `config.json` describes, with weights as transformers initialises them."""
    return PromptableSam3(Sam3Config(**config["sam3"]))


def load_model(folder: Path, weights: str = WEIGHTS) -> PromptableSam3:
    """Model of a folder, in evaluation mode."""
    model = build_model(read_json(folder / CONFIG))
    load_weights(model, folder / weights)
    model.eval()
    return model
