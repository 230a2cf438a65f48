"""Phantoms: generated studies with known truth, in the formats of real archives.

They stand in where a dataset comes from neither a mirror nor its official address, under names and
cards of their own, so that nothing generated passes for real data. Everything is a function of the
seed: equal seeds give equal bytes. What was planted is written to `<name>.truth.json` beside the
dataset's folder, never inside it: an ingest that could read the truth would prove nothing.
"""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from infra.errors import UsageError
from infra.storage import read_json, sync_folder, write_json

_MAKERS = {
    "Phantom_CT_DICOM": "ct_dicom",
    "Phantom_Lesion_US": "lesion_us",
    "Phantom_MR_NIfTI": "mr_nifti",
    "Phantom_Nuclei": "nuclei",
}
PHANTOMS: tuple[str, ...] = tuple(_MAKERS)
TRUTH_VERSION = 1


@dataclass(frozen=True)
class Fault:
    """A planted fault: the case it spoils, the file, and the quarantine reason that is true of it."""

    case_id: str
    file: str
    reason: str


@dataclass
class Truth:
    """What a phantom really holds: voxels or pixels per case and concept, instances, planted faults."""

    voxels: dict[str, dict[str, int]] = field(default_factory=dict)
    instances: dict[str, dict[str, int]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)


def truth_file(name: str, root: Path) -> Path:
    """Where the truth of phantom `name` is written: beside its folder."""
    return root / f"{name}.truth.json"


def make_phantom(name: str, root: Path, seed: int = 7) -> dict[str, Any]:
    """Write phantom `name` into `root/name` and return its truth.

    The truth is `{"phantom", "seed", "version", "voxels": {case: {concept: count}}, "instances":
    {case: {concept: count}}, "faults": [{"case_id", "file", "reason"}]}`. A folder completed earlier
    with the same seed is kept as it is; a half-made one is made again. UsageError for another name.
    """
    if name not in _MAKERS:
        msg = f"phantom: expected one of {', '.join(PHANTOMS)}, found {name!r}"
        raise UsageError(msg)
    folder, told = root / name, truth_file(name, root)
    identity = {"phantom": name, "seed": seed, "version": TRUTH_VERSION}
    if folder.is_dir() and told.is_file():
        known: dict[str, Any] = read_json(told)
        if identity.items() <= known.items():
            return known
    root.mkdir(parents=True, exist_ok=True)
    for leftover in root.glob(f".{name}.*.part-folder"):
        shutil.rmtree(leftover)
    temporary = root / f".{name}.{os.getpid()}.part-folder"
    temporary.mkdir()
    try:
        maker: Callable[[Path, int], Truth] = importlib.import_module(f"{__name__}.{_MAKERS[name]}").make
        truth: dict[str, Any] = {**identity, **asdict(maker(temporary, seed))}
        # The truth is the mark of completion: gone before the folder changes, written after it is whole.
        told.unlink(missing_ok=True)
        if folder.is_dir():
            shutil.rmtree(folder)
        temporary.replace(folder)
        sync_folder(root)
        write_json(told, truth)
    finally:
        if temporary.exists():
            shutil.rmtree(temporary)
    return truth
