"""LoRA by peft: adapters put into SAM3's layers, and merged into plain weights when a run is over.

Serving, registry and evaluation see merged weights alone: only training needs peft, the extra `lora`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from infra.errors import UsageError
from infra.storage import write_json
from training.lora_settings import ADAPTED, WHOLE, Lora, need_peft
from training.sam3.checkpoint import save_weights

_NAME = "default"  # peft's name for the only adapter there is
_FACTOR = re.compile(rf"(?P<layer>.+)\.lora_(?P<which>[AB])\.{_NAME}\.weight")
_BASE = ".base_layer."
_PEFT_PREFIX = "base_model.model."


def is_adapter(name: str) -> bool:
    """Whether a parameter is a factor of an adapter, by its name."""
    return ".lora_" in name


def add_adapters(model: nn.Module, lora: Lora, seed: int) -> None:
    """Put adapters into `model`, in place, and let them and the parts of `lora.full` be all that is trained.

    A is drawn from `seed` alone (the same on every rank), B is zero. UsageError where peft is not installed.
    """
    need_peft()
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha or lora.rank,
        lora_dropout=lora.dropout,
        target_modules="|".join(ADAPTED[part] for part in lora.parts),
        bias="none",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, model, adapter_name=_NAME)
    whole = _whole(lora)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(is_adapter(name) or bool(whole and whole.match(name)))


def _whole(lora: Lora) -> re.Pattern[str] | None:
    return re.compile("|".join(rf"{WHOLE[part]}\." for part in lora.full)) if lora.full else None


def merged(state: Mapping[str, Tensor], lora: Lora) -> dict[str, Tensor]:
    """A state dict with adapters as one without: W + scale · B · A under W's own name, in fp32.

    Raises:
        ValueError: an adapter without its other half or its layer.
    """
    result: dict[str, Tensor] = {}
    factors: dict[str, dict[str, Tensor]] = {}
    for name, value in state.items():
        if found := _FACTOR.fullmatch(name):
            factors.setdefault(found["layer"], {})[found["which"]] = value
        else:
            result[name.replace(_BASE, ".")] = value
    for layer, pair in factors.items():
        name = f"{layer}.weight"
        if pair.keys() != {"A", "B"} or name not in result:
            msg = f"{layer}: expected a weight and both factors of its adapter, found {sorted(pair)}"
            raise ValueError(msg)
        weight = result[name]
        result[name] = (weight.float() + lora.scale * (pair["B"].float() @ pair["A"].float())).to(weight.dtype)
    return result


def trained_numbers(model: nn.Module) -> int:
    """Numbers in the parameters of `model` that are trained."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def save_adapters(folder: Path, state: Mapping[str, Tensor], lora: Lora) -> str:
    """Write what was trained as peft's `PeftModel.from_pretrained` reads it; return the tensors' SHA-256.

    Args:
        folder: made where it is missing.
        state: of the model with adapters, whole tensors; what is neither adapter nor in `lora.full` is left out.
        lora: the settings of the run.
    """
    whole = _whole(lora)
    tensors = {
        _PEFT_PREFIX + name.replace(f".{_NAME}.weight", ".weight"): value
        for name, value in state.items()
        if is_adapter(name) or (whole and whole.match(name))
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "adapter_config.json", adapter_config(state, lora))
    return save_weights(folder / "adapter_model.safetensors", tensors)


def adapter_config(state: Mapping[str, Tensor], lora: Lora) -> dict[str, Any]:
    """peft's `adapter_config.json`: the adapted layers by name, and the modules trained as they are."""
    layers = sorted({found["layer"] for name in state if (found := _FACTOR.fullmatch(name))})
    if not layers:
        msg = "adapters: expected a state dict with adapters, found none in it"
        raise UsageError(msg)
    whole = _whole(lora)
    modules = sorted({found[0].rstrip(".") for name in state if whole and (found := whole.match(name))})
    return {
        "peft_type": "LORA",
        "r": lora.rank,
        "lora_alpha": lora.alpha or lora.rank,
        "lora_dropout": lora.dropout,
        "bias": "none",
        "target_modules": layers,
        "modules_to_save": modules or None,
        "inference_mode": True,
    }
