"""The sqlite file of MLflow: made whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from infra.processes import alone_in
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

    with alone_in(target.parent):
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
