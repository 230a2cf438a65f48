from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.errors import DataError, UsageError
from infra.storage import sha256_file
from registry.predictor import encode_png
from registry.store import COMPLETE, LINEAGE_FILE, RegistryStore
from tests.registry import samples
from tests.registry.conftest import MODEL, Made

Make = Callable[..., Made]


def test_the_same_candidate_twice_is_one_version_with_everything_known_about_it(store: RegistryStore, make: Make):
    made = make()
    first, second = made.register(store), made.register(store)
    assert (first.version, first.created) == (1, True)
    assert (second.version, second.run_id, second.created) == (1, first.run_id, False)
    [version] = store.versions(MODEL)
    assert version.weights_sha256 == sha256_file(made.candidate / "model.safetensors")
    assert version.tags["segfoundry.data_version"] == "data-v1"
    assert version.tags["segfoundry.manifest.BUSI"] == made.lineage["manifest_digests"]["BUSI"]
    assert version.tags["segfoundry.strictest_licence"] == "research and education only"
    assert version.tags["segfoundry.commercial_use"] == "no"
    assert version.tags["segfoundry.redistribution"] == "yes"

    run = store.client.get_run(first.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["train.optimizer.learning_rate"] == "0.001"
    figures = json.loads((made.evaluation / "evaluation.json").read_text())
    assert run.data.metrics["summary/dice_text_after"] == pytest.approx(figures["summary"]["dice_text_after"])
    assert run.data.metrics["dataset/DSB2018/dice_text_after"] == pytest.approx(0.66)
    assert "dataset/Sunnybrook/dice_text_after" not in run.data.metrics
    curve = store.client.get_metric_history(first.run_id, "train/loss")
    assert [point.step for point in curve] == list(range(1, 25))
    inputs = {one.dataset.name: one.dataset for one in run.inputs.dataset_inputs}
    assert set(inputs) == set(made.lineage["manifest_digests"])
    source = json.loads(inputs["BUSI"].source)
    assert source["manifest_digest"] == made.lineage["manifest_digests"]["BUSI"]
    assert source["data_version"] == "data-v1"
    assert inputs["BUSI"].digest == source["manifest_digest"][:36]
    files = {one.path for one in store.client.list_artifacts(first.run_id, "evaluation/overlays")}
    assert files == {"evaluation/overlays/MSD_Hippocampus-0.png", "evaluation/overlays/dcmqi-1.png"}
    assert store.lineage_of(MODEL, 1) == made.lineage
    assert store.evaluation_of(MODEL, 1) == figures
    assert LINEAGE_FILE in {one.path for one in store.client.list_artifacts(first.run_id)}


def test_a_fresh_process_elsewhere_loads_the_champion_without_pickle_and_segments_a_new_image(
    store: RegistryStore, make: Make, tmp_path: Path
):
    registered = make().register(store)
    store.client.set_registered_model_alias(MODEL, "champion", str(registered.version))
    model_files = [path.name for path in (tmp_path / "mlartifacts").rglob("*") if path.is_file()]
    assert "model.safetensors" in model_files
    assert "start.safetensors" not in model_files
    assert not [name for name in model_files if name.endswith((".pkl", ".pickle", ".pt", ".pth", ".bin", ".pyc"))]

    (tmp_path / "elsewhere").mkdir()
    image = samples.picture()
    image[30:40, 5:15] = 220
    (tmp_path / "elsewhere" / "new.png").write_bytes(encode_png(image))
    script = (Path(__file__).parent / "fresh_process.py").read_text()
    environment = {
        "MLFLOW_TRACKING_URI": store.tracking_uri,
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-c", script, MODEL],
        cwd=tmp_path / "elsewhere",
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["area"] == 10 * 20 + 10 * 10
    assert answer["size"] == [48, 64]
    assert answer["box"] == [5.0, 12.0, 50.0, 40.0]
    assert answer["score"] == pytest.approx([0.9, 0.1])
    assert answer["nothing"] == 0
    assert answer["inputs"] == ["image", "prompt"]
    # the code came with the model, not from this checkout
    assert all(str(tmp_path) in path for path in answer["code"])


def test_a_registration_cut_off_before_its_version_is_deleted_and_redone(
    store: RegistryStore, make: Make, monkeypatch: pytest.MonkeyPatch
):
    made = make()

    class Killed(BaseException):
        pass

    def die(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(type(store.client), "create_model_version", die)
        with pytest.raises(Killed):
            made.register(store)
    experiment = store.client.get_experiment_by_name(f"segfoundry/{MODEL}").experiment_id
    [half] = store.client.search_runs([experiment])
    assert half.data.tags[COMPLETE] == "false"
    assert store.versions(MODEL) == []

    registered = made.register(store)
    assert registered.created
    assert registered.run_id != half.info.run_id
    [run] = store.client.search_runs([experiment])
    assert run.info.run_id == registered.run_id
    assert run.data.tags[COMPLETE] == "true"
    [model] = store.client.search_logged_models([experiment])
    assert model.source_run_id == registered.run_id


def test_a_registration_cut_off_after_its_version_is_only_closed(
    store: RegistryStore, make: Make, monkeypatch: pytest.MonkeyPatch
):
    made = make()
    with monkeypatch.context() as patch:
        patch.setattr(store, "_finish", lambda _: None)
        first = made.register(store)
    second = made.register(store)
    assert (second.version, second.run_id, second.created) == (first.version, first.run_id, False)
    run = store.client.get_run(first.run_id)
    assert (run.info.status, run.data.tags[COMPLETE]) == ("FINISHED", "true")


def test_weights_that_were_not_evaluated_are_not_registered(store: RegistryStore, make: Make):
    one, other = make("a"), make("b", threshold=30.0)
    mixed = Made(one.candidate, other.evaluation, one.lineage)
    with pytest.raises(DataError, match="run the evaluation again"):
        mixed.register(store)
    assert store.versions(MODEL) == []


def test_a_version_that_does_not_exist_is_named_with_those_that_do(store: RegistryStore, make: Make):
    make().register(store)
    with pytest.raises(UsageError, match="'champion'"):
        store.resolve(MODEL, "champion")
    assert store.resolve(MODEL, "v1").version == store.resolve(MODEL, 1).version == 1


KILLED_WHILE_IT_MAKES_THE_DATABASE = """
import os, signal, sys
import sqlalchemy as sa
from registry.store import RegistryStore

seen = []

@sa.event.listens_for(sa.engine.Engine, "before_cursor_execute")
def count(*_):
    seen.append(1)
    if len(seen) == 200:
        os.kill(os.getpid(), signal.SIGKILL)

RegistryStore(sys.argv[1]).versions("nothing")
"""


def test_killed_while_the_database_is_made_it_is_made_again(tmp_path: Path) -> None:
    database = tmp_path / "mlflow.db"
    program = [sys.executable, "-c", KILLED_WHILE_IT_MAKES_THE_DATABASE, f"sqlite:///{database}"]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not database.exists()
    assert (tmp_path / ".mlflow.db.part-tmp").stat().st_size > 0
    assert RegistryStore(f"sqlite:///{database}").versions("nothing") == []
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]


def test_files_are_put_together_where_the_caller_says(store: RegistryStore, make: Make, tmp_path: Path) -> None:
    own = RegistryStore(store.tracking_uri, tmp_path / "mlartifacts", temporary=tmp_path / "tmp")
    registered = make().register(own)
    assert own.read_json_artifact(registered.run_id, LINEAGE_FILE)
    assert list((tmp_path / "tmp").iterdir()) == []
