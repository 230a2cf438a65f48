"""Files of versions, which somebody may delete, and whose storage may be down: the two are told apart."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from infra.errors import DataError, ServiceError
from infra.storage import read_json

if TYPE_CHECKING:
    from registry.store import RegistryStore

# Errors of the folder that a copy is made in, not of the storage.
_OF_THE_MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS)


class ArtifactGone(DataError):
    """A file of a version is not there any more, or no longer what was written; its storage answers."""


def read_json_artifact(store: RegistryStore, run_id: str, path: str) -> Any:
    """A JSON artifact of a run.

    ArtifactGone where its storage says that it is not there, and where it is damaged; ServiceError where the storage
    does not answer: then nothing is known about the file.
    """
    from mlflow.exceptions import MlflowException

    try:
        with store.artifact(run_id, path) as found:
            return read_json(found)
    except ValueError as error:
        msg = f"MLflow run {run_id}: {path} is damaged: expected JSON, found otherwise: {error}"
        raise ArtifactGone(msg) from error
    except (MlflowException, OSError) as error:
        if _is_gone(store, run_id, path):
            msg = f"MLflow run {run_id}: expected {path}, as it was registered, found none: its files were deleted"
            raise ArtifactGone(msg) from error
        if isinstance(error, OSError) and error.errno in _OF_THE_MACHINE:
            raise
        msg = f"MLflow run {run_id}: {path} cannot be read: {' '.join(str(error).split())[:300]}"
        raise ServiceError(msg) from error


def _is_gone(store: RegistryStore, run_id: str, path: str) -> bool:
    """Whether the storage of artifacts answers, and says that it has no such file."""
    from mlflow.exceptions import MlflowException

    own = store.artifact_root if not store.tracking_uri.startswith("http") else None
    if own is not None and not own.is_dir():
        return False  # a folder of another disk that is not mounted looks empty
    try:
        return not store.has_artifact(run_id, path)
    except (MlflowException, OSError):
        return False
