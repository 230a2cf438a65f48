"""The folder of what the official SAM3 code computes: SEGFOUNDRY_GOLDEN, or `../shared/golden` beside the checkout.

Sizes, cases and layers are read from the folder, so that another one of the same form is tested too.
"""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

MISSING = "no golden values: set SEGFOUNDRY_GOLDEN to a folder of the official code's outputs"


def folder() -> Path | None:
    """The folder, or None where neither the named nor the usual one is there."""
    named = os.environ.get("SEGFOUNDRY_GOLDEN")
    path = Path(named) if named else Path(__file__).resolve().parents[3] / "shared" / "golden"
    return path if path.is_dir() else None


@cache
def tensors(name: str) -> dict[str, Tensor]:
    found = folder()
    assert found is not None
    loaded: dict[str, Tensor] = load_file(found / f"{name}.safetensors")
    return loaded


@cache
def record(name: str) -> dict[str, Any]:
    found = folder()
    assert found is not None
    loaded: dict[str, Any] = json.loads((found / f"{name}.json").read_text(encoding="utf-8"))
    return loaded


def cases(name: str) -> list[str]:
    """Names of the cases in `forward.json` or `losses.json`; one that will be skipped where there is no folder."""
    return list(record(name)["cases"]) if folder() else ["no folder"]
