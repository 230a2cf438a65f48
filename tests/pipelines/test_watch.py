"""What arrives in a watched place: seen by its listing, taken when it is at rest, and not twice."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import fsspec
import pytest
import yaml

from infra import remote
from infra.errors import DataError, ServiceError, UsageError
from infra.settings import load_settings
from infra.storage import write_json
from pipelines import arrivals, demo, events, plan
from pipelines.watch import Watcher
from pipelines.workspace import PROJECT, Workspace
from preprocessing.phantoms import make_phantom
from tests.s3 import client, s3

SETTLE_S = 5.0
CARD = """\
name: WardPictures
modality: endoscopy
licence: {terms: internal use, redistribution: no, commercial: no}
layouts:
  - image: "images/{case}.png"
    label: "masks/{case}.png"
labels: {kind: ByColour, colours: {"#00ff00": polyp}}
searched: [polyp]
group: "{group:word}_*"
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made")
    for name in ("Phantom_Nuclei", "Phantom_Lesion_US"):
        make_phantom(name, root, 7)
    return root


@pytest.fixture
def place(tmp_path: Path, made: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A workspace that has scanned Phantom_Nuclei, and a watched folder beside it."""
    monkeypatch.setenv("SEGFOUNDRY_OFFLINE", "1")
    monkeypatch.setenv("SEGFOUNDRY_WATCH_SETTLE_S", str(SETTLE_S))
    params = yaml.safe_load((PROJECT / "params.yaml").read_text(encoding="utf-8"))
    place = Workspace.prepare(tmp_path / "workspace", {**params, "datasets": ["Phantom_Nuclei"]})
    plan.remember_folder(place, ["Phantom_Nuclei"], made / "Phantom_Nuclei")
    demo.look_for_sources(place.root)
    return place


@pytest.fixture
def inbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "inbox"
    folder.mkdir()
    monkeypatch.setenv("SEGFOUNDRY_WATCH", str(folder))
    return folder


def _age(folder: Path, seconds: float) -> None:
    """Let `seconds` pass for a folder: change times cannot be set, so the rest that is asked for shrinks."""
    latest = max(path.stat().st_ctime for path in [folder, *folder.rglob("*")])
    while time.time() - latest < seconds:
        time.sleep(0.02)


def _watcher(place: Workspace, watch: str, started: list[tuple[str, str]], settle_s: float = 0.2) -> Watcher:
    return Watcher(place, watch, settle_s=settle_s, start=lambda why, key: started.append((why, key)))


def test_a_folder_counts_when_it_is_at_rest_and_once(place: Workspace, inbox: Path, made: Path) -> None:
    started: list[tuple[str, str]] = []
    watcher = _watcher(place, str(inbox), started)
    source, target = made / "Phantom_Lesion_US", inbox / "Phantom_Lesion_US"
    files = sorted(path for path in source.rglob("*") if path.is_file())
    for number, path in enumerate(files):
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy)  # keeps the old time of change, as rsync and cp -p do
        if number % 10 == 0:
            assert watcher.look() == [], "half a copy was taken for a dataset"
    assert watcher.look() == []
    _age(target, 0.2)
    assert watcher.look(time.monotonic() + 0.3) == ["Phantom_Lesion_US"]
    assert watcher.look(time.monotonic() + 0.6) == []
    assert _watcher(place, str(inbox), started).look(time.monotonic()) == []
    again = _watcher(place, str(inbox), started)  # a restart forgets nothing
    again.look(time.monotonic())
    assert again.look(time.monotonic() + 1) == []
    assert [why for why, _ in started] == ["Phantom_Lesion_US: a new dataset"]


def test_the_same_bytes_again_lead_to_nothing_and_another_byte_does(place: Workspace, inbox: Path, made: Path) -> None:
    started: list[tuple[str, str]] = []
    watcher = _watcher(place, str(inbox), started, settle_s=0.0)
    for name in ("Phantom_Nuclei", "phantom_lesion_us"):  # the second: the same bytes under the name of another card
        shutil.copytree(made / "Phantom_Nuclei", inbox / name)
    assert watcher.look() == []
    shutil.rmtree(inbox / "Phantom_Nuclei")
    shutil.copytree(made / "Phantom_Nuclei", inbox / "Phantom_Nuclei")
    assert watcher.look() == []
    (inbox / "Phantom_Nuclei" / "one more.png").write_bytes(b"no picture")
    assert watcher.look() == ["Phantom_Nuclei"]
    assert [why for why, _ in started] == ["Phantom_Nuclei: its files changed"]


def test_of_two_folders_that_are_one_dataset_none_is_taken(
    place: Workspace, inbox: Path, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGFOUNDRY_WATCH_SETTLE_S", "0")
    for name in ("Phantom_Lesion_US", "phantom_lesion_us"):
        shutil.copytree(made / "Phantom_Lesion_US", inbox / name)
    told: list[dict[str, object]] = []
    with events.listening(told.append):
        assert arrivals.found(place, str(inbox), []) == []
    said = [one for one in told if one["kind"] == "arrival"]
    assert [one["taken"] for one in said] == [False, False]
    assert all("keep one" in str(one["reason"]) for one in said)

    record = {"kind": "folder", "path": str((inbox / "Phantom_Lesion_US").resolve()), "reason": "it arrived"}
    write_json(place.state / "roots.json", {"Phantom_Lesion_US": record})
    with events.listening(told.append):
        assert [one.listed.name for one in arrivals.found(place, str(inbox), [])] == ["Phantom_Lesion_US"]
    assert "phantom_lesion_us" in [one["folder"] for one in told[len(said) :] if one["kind"] == "arrival"]


def test_a_folder_without_a_card_is_said_once_and_not_taken(place: Workspace, inbox: Path) -> None:
    (inbox / "holiday").mkdir()
    (inbox / "holiday" / "beach.png").write_bytes(b"sand")
    (inbox / ".hidden").mkdir()
    started: list[tuple[str, str]] = []
    watcher = _watcher(place, str(inbox), started, settle_s=0.0)
    assert watcher.look() == []
    with pytest.raises(UsageError, match=r"holiday: no dataset.*card\.yaml"):
        arrivals.name_of(place, str(inbox), "holiday")
    assert started == []


def test_a_run_takes_what_arrived_with_its_own_card_into_params_and_git(
    place: Workspace, inbox: Path, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from infra import repository

    folder = inbox / "ward 7"
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
        (folder / kind / "p1_1.png").write_bytes(kind.encode())
    (folder / "card.yaml").write_text(CARD, encoding="utf-8")
    demo.look_for_sources(place.root)
    assert place.params().datasets == ["Phantom_Nuclei"], "it was not at rest yet"
    monkeypatch.setenv("SEGFOUNDRY_WATCH_SETTLE_S", "0")
    demo.look_for_sources(place.root)
    assert place.params().datasets == ["Phantom_Nuclei", "WardPictures"]
    assert place.roots()["WardPictures"]["path"] == str(folder)
    assert (place.cards / "WardPictures.yaml").read_text(encoding="utf-8") == CARD
    assert repository.git(place.root, "log", "-1", "--format=%s") == "arrived: WardPictures"
    head = repository.git(place.root, "rev-parse", "HEAD")
    demo.look_for_sources(place.root)
    assert repository.git(place.root, "rev-parse", "HEAD") == head


def test_a_prefix_of_an_object_store_is_watched_and_copied(
    place: Workspace, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[str, str]] = []
    with s3("incoming"):
        url = "s3://incoming/sets"
        monkeypatch.setenv("SEGFOUNDRY_WATCH", url)
        monkeypatch.delenv("SEGFOUNDRY_OFFLINE")
        client().put(f"{made}/Phantom_Lesion_US/", "incoming/sets/Phantom_Lesion_US/", recursive=True)
        watcher = _watcher(place, url, started)
        assert watcher.look(0.0) == []
        assert watcher.look(0.3) == ["Phantom_Lesion_US"]
        client().put(f"{made}/Phantom_Lesion_US/", "incoming/sets/Phantom_Lesion_US/", recursive=True)
        assert [watcher.look(at) for at in (0.6, 0.9)] == [[], []], "the same bytes have the same ETag"
        demo.look_for_sources(place.root)
        assert place.params().datasets == ["Phantom_Nuclei", "Phantom_Lesion_US"]
        copied = Path(place.roots()["Phantom_Lesion_US"]["path"])
        count = sum(len(files) for _, _, files in os.walk(made / "Phantom_Lesion_US"))
        assert sum(len(files) for _, _, files in os.walk(copied)) == count


def test_a_content_that_comes_back_starts_a_run_of_its_own_and_two_servers_start_one(
    place: Workspace, tmp_path: Path
) -> None:
    store = fsspec.filesystem("memory")
    url, folder = "memory://back-and-forth", "/back-and-forth/Phantom_Lesion_US"
    keys: list[str] = []
    for content in (b"A", b"B", b"A"):
        store.pipe_file(f"{folder}/a.png", content)
        started: list[tuple[str, str]] = []
        watchers = [_watcher(place, url, started) for _ in range(2)]
        for watcher in watchers:
            watcher.look(0.0)
        before = place.state / "watch.json"
        kept = before.read_bytes() if before.is_file() else b"{}"
        assert watchers[0].look(0.3) == ["Phantom_Lesion_US"]
        before.write_bytes(kept)  # the other one looked in the same moment
        assert watchers[1].look(0.3) == ["Phantom_Lesion_US"]
        assert len({key for _, key in started}) == 1
        assert watchers[0].look(0.6) == []
        keys.append(started[0][1])
    assert len(set(keys)) == 3
    # also where neither times nor marks tell: the store's, and of a file on a disk its inode, are taken away
    keys = []
    for signature in ("a", "b", "a"):
        one = arrivals.Listed("Phantom_Lesion_US", 1, signature, 0.0)
        started = []
        watcher = _watcher(place, url, started, settle_s=0.0)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(arrivals, "listing", lambda watch, one=one: [one])
            watcher.look()
        keys.append(started[0][1])
    assert len(set(keys)) == 3
    (place.state / "watch.json").write_text(json.dumps({"Phantom_Lesion_US": "a"}))  # as it was written once
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrivals, "listing", lambda watch, one=one: [one])
        assert _watcher(place, url, [], settle_s=0.0).look() == []


def test_a_run_that_another_arrival_started_does_not_take_half_an_upload(
    place: Workspace, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SEGFOUNDRY_OFFLINE")
    monkeypatch.setenv("SEGFOUNDRY_WATCH_SETTLE_S", "2")
    folder = made / "Phantom_Lesion_US"
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    with s3("incoming"):
        monkeypatch.setenv("SEGFOUNDRY_WATCH", "s3://incoming/sets")
        client().put(f"{made}/Phantom_Nuclei/", "incoming/sets/Phantom_Nuclei/", recursive=True)
        client().pipe_file("incoming/sets/Phantom_Nuclei/one more.png", b"no picture")

        def put(path: Path) -> None:
            client().put_file(str(path), f"incoming/sets/Phantom_Lesion_US/{path.relative_to(folder).as_posix()}")

        put(files[0])
        stop = threading.Event()

        def upload() -> None:
            for path in files[1:-1]:  # the last one comes later: until then it is no whole upload
                if stop.wait(0.2):
                    return
                put(path)

        uploading = threading.Thread(target=upload)
        uploading.start()
        told: list[dict[str, object]] = []
        try:
            with events.listening(told.append):
                demo.look_for_sources(place.root)
            assert uploading.is_alive(), "the upload ended while the run looked: this showed nothing"
        finally:
            stop.set()
            uploading.join()
        assert place.params().datasets == ["Phantom_Nuclei"]
        assert {one["folder"]: one["taken"] for one in told if one["kind"] == "arrival"} == {
            "Phantom_Nuclei": True,
            "Phantom_Lesion_US": False,
        }
        for path in files:
            put(path)
        put_aside = "incoming/sets/Phantom_Lesion_US/last.png.part"
        client().pipe_file(put_aside, b"half")
        demo.look_for_sources(place.root)
        assert place.params().datasets == ["Phantom_Nuclei"], "something in it is named as unfinished"
        client().rm_file(put_aside)
        begun = time.monotonic()
        demo.look_for_sources(place.root)
        assert place.params().datasets == ["Phantom_Nuclei", "Phantom_Lesion_US"]
        assert time.monotonic() - begun >= 2, "both prefixes are young: only a second listing tells"
        begun = time.monotonic()
        demo.look_for_sources(place.root)
        assert time.monotonic() - begun < 2, "what is copied already need not be looked at twice"


def test_what_is_old_by_the_stores_clock_is_at_rest_and_what_has_no_time_is_listed_twice(
    place: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGFOUNDRY_WATCH_SETTLE_S", "3600")
    store, url = fsspec.filesystem("memory"), "memory://clocks"
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    for name, age_s in (("old", 3600 + arrivals.CLOCKS_S + 60), ("young", 3600 + 60), ("ahead", -7200)):
        store.pipe_file(f"/clocks/{name}/a.png", b"x")
        store.store[f"/clocks/{name}/a.png"].created = datetime.now(UTC) - timedelta(seconds=age_s)
    listed, moving = arrivals.resting(place, url, patient=False)
    assert ([one.name for one in listed], sorted(moving)) == (["old"], ["ahead", "young"])
    assert slept == []
    assert [one.name for one in arrivals.resting(place, url)[0]] == ["ahead", "old", "young"]
    assert slept == [3600]
    without = [arrivals.Listed("x", 1, "s", 0.0), arrivals.Listed("y", 1, "s", 0.0)]
    later = [arrivals.Listed("x", 2, "t", 0.0), without[1]]
    answers = iter([without, later])
    monkeypatch.setattr(arrivals, "listing", lambda watch: next(answers))
    listed, moving = arrivals.resting(place, url)
    assert ([one.name for one in listed], moving) == (["y"], {"x": "it is still being written"})


def test_a_copy_that_was_cut_off_is_not_built_from(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    store, url = fsspec.filesystem("memory"), "memory://cut-off"
    monkeypatch.setenv("SEGFOUNDRY_WATCH", url)
    monkeypatch.setenv("SEGFOUNDRY_WATCH_SETTLE_S", "0")
    for name in ("a", "b"):
        store.pipe_file(f"/cut-off/Phantom_Lesion_US/{name}.png", b"first")
    arrivals.take(place, {"datasets": []}, load_settings())
    assert Path(place.roots()["Phantom_Lesion_US"]["path"], "a.png").read_bytes() == b"first"
    for name in ("a", "b"):
        store.pipe_file(f"/cut-off/Phantom_Lesion_US/{name}.png", b"second")
    copy, tries = remote._copy, []

    def breaks(store: object, each: remote.RemoteFile, target: Path) -> None:
        tries.append(each.file)
        if len(tries) == 2:
            raise ServiceError("the store is gone")
        copy(store, each, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remote, "_copy", breaks)
        with pytest.raises(ServiceError, match="the store is gone"):
            arrivals.take(place, {"datasets": ["Phantom_Lesion_US"]}, load_settings())
    store.pipe_file("/cut-off/Phantom_Lesion_US/c.png.part", b"and it changes again")
    with pytest.raises(DataError, match="Phantom_Lesion_US: expected a whole copy"):
        arrivals.take(place, {"datasets": ["Phantom_Lesion_US"]}, load_settings())
    store.rm_file("/cut-off/Phantom_Lesion_US/c.png.part")
    arrivals.take(place, {"datasets": ["Phantom_Lesion_US"]}, load_settings())
    folder = Path(place.roots()["Phantom_Lesion_US"]["path"])
    assert {path.read_bytes() for path in folder.iterdir()} == {b"second"}


def test_settings_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGFOUNDRY_WATCH_EVERY_S", "0")
    with pytest.raises(UsageError, match="SEGFOUNDRY_WATCH_EVERY_S"):
        load_settings()
