"""How MLflow behaves in our processes: no telemetry, no pickles, no chatter, no bars."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager


def quiet_mlflow() -> None:
    """No telemetry, no pickles, no chatter: before MLflow is first imported."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    for name in ("alembic", "mlflow.store.db.utils", "mlflow.types.utils", "mlflow.pyfunc"):
        logging.getLogger(name).setLevel(logging.WARNING)


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """MLflow draws a bar for every copy; ours belong to the command line."""
    name = "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"
    before = os.environ.get(name)
    os.environ[name] = "false"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name)
        else:
            os.environ[name] = before
