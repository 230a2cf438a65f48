"""The model folder of a registered version, brought back from MLflow: what training may start from."""

from __future__ import annotations

import shutil
from pathlib import Path

from infra.errors import DataError
from infra.storage import sha256_file, staged_folder
from registry.environment import no_progress_bars
from registry.store import RegistryStore

_DATA = "data"  # where an MLflow pyfunc folder keeps what its loader is given
WEIGHTS = "model.safetensors"


def fetch_candidate(store: RegistryStore, name: str, version: int | str, target: Path) -> Path:
    """Copy the candidate folder (docs/architecture.md) of a version to `target`; one that is complete is kept.

    Raises DataError where the weights are not those that the version names.
    """
    chosen = store.resolve(name, version)
    if (target / WEIGHTS).is_file():
        return target
    client = store.client  # its import is quiet and knows the address
    from mlflow.artifacts import download_artifacts

    source = client.get_model_version_download_uri(name, str(chosen.version))
    if target.exists():
        shutil.rmtree(target)
    with staged_folder(target) as temporary, no_progress_bars():
        arrived = Path(
            download_artifacts(artifact_uri=source, dst_path=str(temporary / "all"), tracking_uri=store.tracking_uri)
        )
        weights = sorted((arrived / _DATA).rglob(WEIGHTS))
        found = sha256_file(weights[0]) if weights else "none"
        if found != chosen.weights_sha256:
            msg = (
                f"model {name} version {chosen.version}: expected the weights {chosen.weights_sha256[:12]} in "
                f"{source}, found {found[:12]}; the registry's files are damaged"
            )
            raise DataError(msg)
        for entry in weights[0].parent.iterdir():
            entry.rename(temporary / entry.name)
        shutil.rmtree(temporary / "all")
    return target
