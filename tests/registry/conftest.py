from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from registry.promote import taken_back
from registry.store import Registered, RegistryStore
from tests.postgres import Postgres, postgres
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
        candidate = samples.write_candidate(tmp_path / name / "candidate", threshold=threshold, steps=24)
        evaluation = samples.write_evaluation(tmp_path / name / "evaluation", candidate, change=change)
        return Made(candidate, evaluation, samples.lineage(candidate, evaluation))

    return make


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated MLflow database: making one costs seconds, so tests copy it."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    assert RegistryStore(f"sqlite:///{path}").versions("nothing") == []
    return path


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    with postgres() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_template(postgres_server: Postgres) -> str:
    """The name of a PostgreSQL database that MLflow has migrated."""
    url = postgres_server.database()
    assert RegistryStore(url).versions("nothing") == []
    return url.rpartition("/")[2]


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A migrated MLflow database of its own, of each kind that the registry runs on."""
    if request.param == "sqlite":
        target = tmp_path / "mlflow.db"
        target.write_bytes(request.getfixturevalue("empty_database").read_bytes())
        yield f"sqlite:///{target}"
        return
    server = request.getfixturevalue("postgres_server")
    url = server.database(request.getfixturevalue("postgres_template"))
    yield url
    server.drop(url)


@pytest.fixture(params=["sqlite", "postgres"])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database of its own, of each kind that the ledger runs on."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'ledger.db'}"
        return
    server = request.getfixturevalue("postgres_server")
    url = server.database()
    yield url
    server.drop(url)


@pytest.fixture
def store(tmp_path: Path, database_url: str) -> RegistryStore:
    return RegistryStore(database_url, tmp_path / "mlartifacts")


def unguarded(url: str, *statements: str) -> None:
    """What somebody with all rights does to the ledger: the guard taken off, the statements, the guard back on."""
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            for name in ("update", "delete", "replace"):
                connection.execute(sa.text(f"DROP TRIGGER segfoundry_ledger_no_{name}"))
        else:
            connection.execute(sa.text("ALTER TABLE segfoundry_ledger DISABLE TRIGGER USER"))
        for statement in statements:
            connection.execute(sa.text(statement))
        if engine.dialect.name != "sqlite":
            connection.execute(sa.text("ALTER TABLE segfoundry_ledger ENABLE TRIGGER USER"))
    engine.dispose()


def rolled_back(store: RegistryStore, version: int) -> bool:
    """Whether a person took the weights of a version out of service, and nobody put them back since."""
    return store.resolve(MODEL, version).weights_sha256 in taken_back(store, MODEL)
