"""Reading tensors from files, and nothing but tensors: no pickle is ever executed.

torch files go through torch's restricted unpickler (`weights_only=True`, and without the exceptions that
other code of the process may have registered), mapped into memory where their format allows it.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from infra.errors import DataError
from training.sam3.source import Located

_SECTIONS = ("model", "state_dict", "model_state_dict")
_INSTANTIATOR = "_instantiator"
_DEEPEST = 32


@dataclass
class Read:
    """Tensors of a checkpoint by name, and what lay beside them."""

    tensors: dict[str, Tensor]
    form: str  # "safetensors", "torch zip (mapped)", "torch legacy"
    beside: dict[str, int] = field(default_factory=dict)  # section: number of tensors in it


def read_tensors(located: Located) -> Read:
    """All tensors of a checkpoint's files; DataError for whatever is damaged or holds more than data."""
    if located.files[0].suffix == ".safetensors":
        return Read(_read_safetensors(located.files), "safetensors")
    return _read_torch(located.files[0])


def _read_safetensors(files: tuple[Path, ...]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for file in files:
        try:
            with safe_open(file, framework="pt") as handle:
                names = list(handle.keys())
                twice = sorted(tensors.keys() & set(names))
                if twice:
                    msg = f"{file.name}: expected each tensor in one shard, found again: {', '.join(twice)}"
                    raise DataError(msg)
                for name in names:
                    tensors[name] = handle.get_tensor(name)
        except (SafetensorError, OSError) as error:
            msg = f"{file.name}: expected a safetensors file, found a damaged or other one ({error})"
            raise DataError(msg) from error
    return tensors


def _read_torch(file: Path) -> Read:
    with file.open("rb") as handle:
        zipped = handle.read(4) == b"PK\x03\x04"
    if zipped:
        _refuse_compressed(file)
    content = _load(file, mapped=zipped)
    if not isinstance(content, Mapping):
        msg = f"{file.name}: expected a dict of tensors, found {type(content).__name__}"
        raise DataError(msg)
    _refuse_instantiator(content, file.name)
    section = _section(content, file.name)
    tensors = content[section] if section else content
    found: dict[str, Tensor] = {}
    others: list[str] = []
    for name, value in tensors.items():
        if isinstance(name, str) and isinstance(value, Tensor):
            found[name] = value.detach()
        else:
            others.append(f"{name}: {type(value).__name__}")
    if section and others:
        msg = f"{file.name}: expected nothing but named tensors in its {section!r}, found {', '.join(others)}"
        raise DataError(msg)
    beside = {
        str(name): _count_tensors(value)
        for name, value in content.items()
        if name != section and not (section == "" and str(name) in found)
    }
    return Read(found, "torch zip (mapped)" if zipped else "torch legacy", beside)


def _refuse_compressed(file: Path) -> None:
    """torch never compresses; a compressed member is a way to a file that grows without bound."""
    try:
        with zipfile.ZipFile(file) as archive:
            packed = [item.filename for item in archive.infolist() if item.compress_type != zipfile.ZIP_STORED]
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        msg = f"{file.name}: expected a torch file, found a damaged one ({error}). Fetch it again"
        raise DataError(msg) from error
    if packed:
        msg = f"{file.name}: expected members as torch.save stores them, found compressed ones: {', '.join(packed[:5])}"
        raise DataError(msg)


def _load(file: Path, *, mapped: bool) -> Any:
    kept = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()  # what other libraries allowed for their own files is not allowed here
    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        wanted = re.search(r"(?:GLOBAL|global:?) ([\w.]+)", str(error))
        found = f"a call of {wanted.group(1)}" if wanted else "something else"
        msg = (
            f"{file.name}: refused: expected tensors and plain values, found {found}. "
            "Nothing of it was run. Ask its maker for safetensors, and take such a file from nobody you do not trust"
        )
        raise DataError(msg) from error
    except Exception as error:  # torch raises all kinds for files that are cut off or made up
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        msg = f"{file.name}: expected a file written by torch.save, found a damaged or other one ({reason})"
        raise DataError(msg) from error
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(kept)


def _refuse_instantiator(value: Any, file: str, depth: int = 0) -> None:
    """Lightning calls what `_instantiator` names when it loads a checkpoint.

    Nothing here would, but such a file is made to attack, or to be loaded by code that we do not run.
    """
    if depth > _DEEPEST:
        msg = f"{file}: expected a few levels of nesting, found more than {_DEEPEST}"
        raise DataError(msg)
    if isinstance(value, Mapping):
        if _INSTANTIATOR in value:
            msg = (
                f"{file}: refused: it names code to run when loaded ({_INSTANTIATOR}: {value[_INSTANTIATOR]!r}). "
                "Nothing of it was run. Ask its maker for safetensors"
            )
            raise DataError(msg)
        for item in value.values():
            _refuse_instantiator(item, file, depth + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            _refuse_instantiator(item, file, depth + 1)


def _section(content: Mapping[Any, Any], file: str) -> str:
    """Name of the entry that holds the weights; empty where they are the content itself."""
    if sum(isinstance(value, Tensor) for value in content.values()) > len(content) / 2:
        return ""
    held = [name for name in _SECTIONS if isinstance(content.get(name), Mapping)]
    if len(held) == 1:
        return held[0]
    msg = (
        f"{file}: expected tensors, or exactly one of {', '.join(_SECTIONS)} that holds them, "
        f"found {', '.join(sorted(str(name) for name in content)) or 'nothing'}"
    )
    raise DataError(msg)


def _count_tensors(value: Any) -> int:
    if isinstance(value, Tensor):
        return 1
    if isinstance(value, Mapping):
        return sum(_count_tensors(item) for item in value.values())
    return sum(_count_tensors(item) for item in value) if isinstance(value, list | tuple) else 0
