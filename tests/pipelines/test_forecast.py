"""The dry run says what a run would do, and leaves every byte of the workspace as it was."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from infra.storage import sha256_file
from pipelines import costs, demo, plan, requests
from pipelines.forecast import forecast
from pipelines.workspace import PROJECT, Workspace
from preprocessing.phantoms import make_phantom


def _bytes_of(place: Workspace) -> dict[str, str]:
    return {
        str(path.relative_to(place.root)): sha256_file(path)
        for path in place.root.rglob("*")
        # DVC's own locks and its cache of hashes say nothing about the workspace
        if path.is_file() and not {"tmp", "dvc"} & set(path.relative_to(place.root).parts)
    }


def test_it_names_what_is_new_changed_and_asked_for_and_touches_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGFOUNDRY_OFFLINE", "1")
    monkeypatch.setenv("SEGFOUNDRY_WATCH_SETTLE_S", "0")
    inbox, raw = tmp_path / "inbox", tmp_path / "raw"
    inbox.mkdir()
    for name in ("Phantom_Nuclei", "Phantom_Lesion_US"):
        make_phantom(name, raw, 7)
    params = yaml.safe_load((PROJECT / "params.yaml").read_text(encoding="utf-8"))
    params["train"]["start"] = "champion"
    place = Workspace.prepare(tmp_path / "workspace", {**params, "datasets": ["Phantom_Nuclei"]})
    plan.remember_folder(place, ["Phantom_Nuclei"], raw / "Phantom_Nuclei")
    demo.look_for_sources(place.root)
    # as after an ingest: what the stage makes is of no interest here, that DVC has it committed is
    (place.data / "Phantom_Nuclei").mkdir(parents=True)
    (place.data / "Phantom_Nuclei" / "file").write_text("made", encoding="utf-8")
    place.repo.commit_stage("ingest@Phantom_Nuclei")
    costs.note(place, "ingest@Phantom_Nuclei", 10.0)
    costs.note(place, "train", 20.0)
    costs.note(place, "evaluate", 5.0)
    request = {
        "id": "0" * 16,
        "cause": "withdrawn",
        "key": "X/1",
        "reason": "r",
        "actor": "a",
        "data_version": "data-v1",
        "datasets": ["X"],
        "cases": ["X/1"],
        "models": [],
    }
    (place.root / requests.REQUESTS_FILE).write_text(json.dumps(request) + "\n", encoding="utf-8")

    shutil.copytree(raw / "Phantom_Lesion_US", inbox / "Phantom_Lesion_US")
    (inbox / "holiday").mkdir()
    (inbox / "holiday" / "beach.png").write_bytes(b"sand")
    (raw / "Phantom_Nuclei" / "one more.png").write_bytes(b"no picture")
    monkeypatch.setenv("SEGFOUNDRY_WATCH", str(inbox))

    before = _bytes_of(place)
    said = forecast(place)
    assert _bytes_of(place) == before

    assert {one["name"]: one["state"] for one in said["datasets"]} == {
        "Phantom_Nuclei": "changed",
        "Phantom_Lesion_US": "new",
    }
    stages = {one["name"]: one for one in said["stages"]}
    assert list(stages) == ["ingest@Phantom_Nuclei", "ingest@Phantom_Lesion_US", "train", "evaluate"]
    assert "1 new or changed" in stages["ingest@Phantom_Nuclei"]["why"][0]
    assert "Phantom_Lesion_US" in stages["train"]["why"][0]
    assert all(one["expected_s"] > 0 for one in said["stages"])
    assert said["expected_s"] == pytest.approx(sum(one["expected_s"] for one in said["stages"]), abs=0.1)
    assert said["start"] == "our own initialisation: no champion yet"
    assert [one["key"] for one in said["requests"]] == ["X/1"]
    assert [one["folder"] for one in said["arrivals_left"]] == ["holiday"]
    assert not (place.root / "mlflow.db").exists()
