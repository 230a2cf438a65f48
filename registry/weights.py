"""The model folder of a registered version, brought back from MLflow: what training may start from."""

from __future__ import annotations

import shutil
from pathlib import Path

from infra.storage import staged_folder
from registry.packaging import WEIGHTS, fetch_model
from registry.store import RegistryStore


def fetch_candidate(store: RegistryStore, name: str, version: int | str, target: Path) -> Path:
    """Copy the candidate folder (docs/architecture.md) of a version to `target`; one that is complete is kept.

    Raises DataError where the weights are not those that the version names.
    """
    chosen = store.resolve(name, version)
    if (target / WEIGHTS).is_file():
        return target
    if target.exists():
        shutil.rmtree(target)
    with staged_folder(target) as temporary:
        arrived = fetch_model(store, chosen, temporary / "all")
        for entry in arrived.iterdir():
            entry.rename(temporary / entry.name)
        shutil.rmtree(temporary / "all")
    return target
