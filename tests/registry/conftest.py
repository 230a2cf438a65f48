from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from registry.store import Registered, RegistryStore
from tests.registry import samples

MODEL = "segfoundry-demo"
RULES: dict[str, Any] = {
    "min_dice_text": 0.25,
    "min_gain_over_start": 0.05,
    "max_score_absent": 0.25,
    "max_loss_per_dataset": 0.05,
}


@dataclass(frozen=True)
class Made:
    candidate: Path
    evaluation: Path
    lineage: dict[str, Any]

    def register(self, store: RegistryStore, name: str = MODEL) -> Registered:
        recipe = {"train": {"recipe": "tiny", "optimizer": {"learning_rate": 0.001}}}
        return store.register(
            self.candidate,
            self.evaluation,
            self.lineage,
            recipe,
            model_name=name,
            example=(samples.picture(), samples.PROMPTS),
        )


@pytest.fixture(autouse=True)
def _engine_is_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(samples.ENGINES))


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Made]:
    def make(name: str = "a", *, threshold: float = 100.0, change: dict[str, float] | None = None) -> Made:
        candidate = samples.write_candidate(tmp_path / name / "candidate", threshold=threshold)
        evaluation = samples.write_evaluation(tmp_path / name / "evaluation", candidate, change=change)
        return Made(candidate, evaluation, samples.lineage(candidate, evaluation))

    return make


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated MLflow database: making one costs seconds, so tests copy it."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    assert RegistryStore(f"sqlite:///{path}").versions("nothing") == []
    return path


@pytest.fixture
def store(tmp_path: Path, empty_database: Path) -> RegistryStore:
    target = tmp_path / "mlflow.db"
    target.write_bytes(empty_database.read_bytes())
    return RegistryStore(f"sqlite:///{target}", tmp_path / "mlartifacts")
