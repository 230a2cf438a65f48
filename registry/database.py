"""The sqlite file of MLflow: made whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from infra.storage import TEMPORARY_SUFFIX


def make_database(tracking_uri: str) -> None:
    """Make a missing sqlite file under another name first: its hundred migrations are no transaction.

    A kill among them would leave tables that fit no revision, which MLflow can neither open nor upgrade.
    """
    if not tracking_uri.startswith("sqlite:///") or ":memory:" in tracking_uri:
        return
    target = Path(tracking_uri.removeprefix("sqlite:///").partition("?")[0])
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        return
    from mlflow.store.db import utils

    with _alone_in(target.parent):
        if target.exists():
            return
        building = target.with_name(f".{target.name}{TEMPORARY_SUFFIX}")
        for leftover in target.parent.glob(f".{target.name}*{TEMPORARY_SUFFIX}*"):  # also sqlite's journal
            leftover.unlink()
        engine = utils.create_sqlalchemy_engine_with_retry(f"sqlite:///{building}")
        try:
            utils._initialize_tables(engine)
        finally:
            engine.dispose()
        os.replace(building, target)


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    # A lock on the folder itself: it leaves no file behind and ends with its process.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
