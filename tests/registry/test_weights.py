"""Weights brought back from MLflow: whole, or an error that says which model, which file and what to do."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.errors import DataError
from infra.storage import sha256_file
from registry.store import RegistryStore
from registry.weights import fetch_candidate
from tests.registry.conftest import MODEL, Made


@pytest.fixture
def store(tmp_path: Path, empty_database: Path) -> RegistryStore:
    """Files are what this is about: one kind of database will do."""
    database = tmp_path / "mlflow.db"
    database.write_bytes(empty_database.read_bytes())
    return RegistryStore(f"sqlite:///{database}", tmp_path / "mlartifacts")


def test_weights_that_are_gone_from_mlflow_are_named_with_their_model(
    store: RegistryStore, make: Callable[..., Made], tmp_path: Path
) -> None:
    made = make("a")
    made.register(store)
    arrived = fetch_candidate(store, MODEL, 1, tmp_path / "arrived")
    assert sha256_file(arrived / "model.safetensors") == sha256_file(made.candidate / "model.safetensors")

    (weights,) = (tmp_path / "mlartifacts").rglob("model.safetensors")
    folder = next((tmp_path / "mlartifacts").rglob("MLmodel")).parent
    for remove, what in (
        (weights.unlink, r"model\.safetensors"),
        ((folder / "MLmodel").unlink, r"model\.safetensors"),  # which says where the weights lie
        (lambda: shutil.rmtree(folder), "the model folder"),
    ):
        remove()
        with pytest.raises(
            DataError, match=rf"{MODEL} version 1: expected {what} in .*mlartifacts.*, found none.*Bring"
        ):
            fetch_candidate(store, MODEL, 1, tmp_path / "again")
        assert not (tmp_path / "again").exists()
    assert fetch_candidate(store, MODEL, 1, tmp_path / "arrived") == arrived  # what is here needs no MLflow's files
