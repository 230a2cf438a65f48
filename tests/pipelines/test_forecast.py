"""The dry run says what a run would do, and leaves every byte of the workspace as it was."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import s3fs
import yaml

from infra.storage import sha256_file
from pipelines import costs, demo, plan, requests
from pipelines.forecast import forecast
from pipelines.workspace import PROJECT, Workspace
from preprocessing.phantoms import make_phantom
from tests.pipelines.test_watch import CARD
from tests.s3 import client, s3


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


def test_raw_files_in_an_object_store_are_listed_and_not_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SEGFOUNDRY_OFFLINE", raising=False)
    monkeypatch.setenv("SEGFOUNDRY_WATCH_SETTLE_S", "0")
    card = tmp_path / "card.yaml"
    card.write_text(CARD, encoding="utf-8")
    params = yaml.safe_load((PROJECT / "params.yaml").read_text(encoding="utf-8"))
    place = Workspace.prepare(tmp_path / "workspace", {**params, "datasets": ["WardPictures", "Phantom_Nuclei"]})
    plan.register_card(place, card)
    make_phantom("Phantom_Nuclei", tmp_path, 7)
    with s3("mirror", "incoming"), pytest.MonkeyPatch.context() as patch:
        for kind in ("images", "masks"):
            for name in ("p1_1", "p2_1"):
                client().pipe_file(f"mirror/WardPictures/{kind}/{name}.png", f"{kind} {name}".encode())
        client().put(f"{tmp_path}/Phantom_Nuclei/", "incoming/Phantom_Nuclei/", recursive=True)
        monkeypatch.setenv("SEGFOUNDRY_MIRROR", "s3://mirror")
        monkeypatch.setenv("SEGFOUNDRY_WATCH", "s3://incoming")
        demo.look_for_sources(place.root)
        for name in place.params().datasets:  # as after an ingest
            (place.data / name).mkdir(parents=True)
            (place.data / name / "file").write_text("made", encoding="utf-8")
            place.repo.commit_stage(f"ingest@{name}")
        read: list[str] = []
        opened = s3fs.S3FileSystem._open

        def counted(store: s3fs.S3FileSystem, path: str, *arguments: object, **named: object) -> object:
            read.append(path)
            return opened(store, path, *arguments, **named)

        patch.setattr(s3fs.S3FileSystem, "_open", counted)
        before = _bytes_of(place)
        said = forecast(place)
        assert {one["name"]: one["state"] for one in said["datasets"]} == {
            "WardPictures": "unchanged",
            "Phantom_Nuclei": "unchanged",
        }
        assert said["arrivals_left"] == []
        assert read == []
        monkeypatch.setenv("SEGFOUNDRY_OFFLINE", "1")
        assert {one["state"] for one in forecast(place)["datasets"]} == {"unchanged"}
        monkeypatch.delenv("SEGFOUNDRY_OFFLINE")

        client().pipe_file("mirror/WardPictures/images/p3_1.png", b"another")
        client().pipe_file("incoming/Phantom_Nuclei/one more.png", b"no picture")
        client().pipe_file("incoming/ward 7/card.yaml", CARD.replace("WardPictures", "Ward7").encode())
        client().pipe_file("incoming/ward 7/images/p1_1.png", b"picture")
        said = forecast(place)
        told = {one["name"]: (one["state"], one["why"]) for one in said["datasets"]}
        assert {name: state for name, (state, _) in told.items()} == {
            "WardPictures": "changed",
            "Phantom_Nuclei": "changed",
            "Ward7": "new",
        }
        assert "1 of 5 files" in told["WardPictures"][1]
        assert "1 of its" in told["Phantom_Nuclei"][1]
        assert "2 of its 2 files would be copied" in told["Ward7"][1]
        assert read == ["incoming/ward 7/card.yaml"], "its name is in its card"
        monkeypatch.setenv("SEGFOUNDRY_WATCH_SETTLE_S", "60")  # now nothing says that the uploads are complete
        assert {one["folder"] for one in forecast(place)["arrivals_left"]} == {"Phantom_Nuclei", "ward 7"}
        assert _bytes_of(place) == before


def test_what_was_never_fetched_is_said_to_be_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEGFOUNDRY_OFFLINE", raising=False)
    monkeypatch.delenv("SEGFOUNDRY_WATCH", raising=False)
    monkeypatch.delenv("SEGFOUNDRY_MIRROR", raising=False)
    params = yaml.safe_load((PROJECT / "params.yaml").read_text(encoding="utf-8"))
    place = Workspace.prepare(tmp_path / "workspace", {**params, "datasets": ["Kvasir-SEG"]})
    said = forecast(place)  # no host is asked: this machine may have no network
    assert [one["state"] for one in said["datasets"]] == ["new"]
    assert "would be downloaded from http" in said["datasets"][0]["why"]
