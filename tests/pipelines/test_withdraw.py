"""A withdrawn picture and its copies: gone from every live shard, known to audits, and at last from DVC's stores."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from infra import repository
from infra.errors import CheckFailed, ServiceError, UsageError
from infra.storage import read_json, read_lines, write_json
from pipelines import release, requests
from pipelines.audits import case, changes, keys, model, purge, purged, search
from pipelines.audits.pages import case_page, data_page, ledger_page, model_page
from pipelines.audits.record import Record, open_record
from pipelines.cli import run
from pipelines.workspace import MODEL_NAME
from preprocessing.schema import MANIFEST_FILE, read_manifest
from registry.audit_page import write_page
from tests.pipelines.test_own_card import segfoundry
from tests.pipelines.withdrawn_world import CLOSED, OPEN, World, make_world, register
from tests.registry import samples

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
KEY = "a secret of ours"  # that `segfoundry` of the tests runs with
WHY = "[gdpr art. 17] letter,\u2028see [/data/forms/12]"  # no markup, and one line of JSON


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(samples.ENGINES))
        patch.setenv("SEGFOUNDRY_PSEUDONYM_KEY", KEY)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        made = make_world(tmp_path_factory.mktemp("world"))
        remote = made.place.root.parent / "remote"
        config = made.place.root / ".dvc" / "config"
        config.write_text(
            config.read_text(encoding="utf-8") + f"['remote \"far\"']\n    url = {remote}\n",
            encoding="utf-8",
        )
        made.place.repo.commit_state("a remote")
        copy = made.place.root / ".dvc" / "cache" / "files"
        shutil.copytree(copy, remote / "files")
        yield made


@pytest.fixture
def record(world: World) -> Iterator[Record]:
    with open_record(world.place) as opened:
        yield opened


# The tests of this file go through the life of one workspace, in the order in which they stand.


def test_a_case_is_found_by_every_name_it_has_and_a_closed_one_never_by_its_own_in_the_answer(
    world: World, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = next(one for one in read_manifest(world.place.data / OPEN).to_pylist() if one["case_id"] == "p0_0")
    for key in (f"{OPEN}/p0_0", "p0_0", row["group_id"], row["sample_id"]):
        found = case.audit(record, world.store, key)
        assert {(one["data_version"], one["case_id"]) for one in found["places"]} == {
            ("data-v1", "p0_0"),
            ("data-v2", "p0_0"),
        }, key
        assert [(one["version"], one["use"]) for one in found["models"]] == [(1, "trained on")]
        assert found["live"]
    hidden = case.audit(record, world.store, "q7_0")
    assert [one["dataset"] for one in hidden["places"]] == [CLOSED]
    assert "q7_0" not in json.dumps(hidden)
    patient = case.audit(record, world.store, "q7")  # by its own name, as the key hashes it
    assert len({one["case_id"] for one in patient["places"]}) == 2
    monkeypatch.setenv("SEGFOUNDRY_PSEUDONYM_KEY", "another")  # then only the names file of this machine knows
    assert case.audit(record, world.store, "q7_0.png")["places"] == hidden["places"]
    with pytest.raises(UsageError, match="p0_0"):
        keys.find(record, f"{OPEN}/p0_00")


def test_an_audit_names_every_case_of_a_model_and_says_what_a_rebuild_lacks(world: World, record: Record) -> None:
    found = model.audit(record, world.store, *model.named(f"models:/{MODEL_NAME}/1"))
    assert found["cases"] == {
        OPEN: {"train": 4, "val": 0, "test": 1},
        CLOSED: {"train": 5, "val": 0, "test": 0},
    }
    names = {one["case_id"] for one in found["case_list"] if one["dataset"] == OPEN}
    assert names == {"p0_0", "p1_0", "p2_0", "p3_0", "p8_0"}
    checks = {one["what"]: one for one in found["rebuild"]["checks"]}
    assert not found["rebuild"]["possible"]
    assert checks["code commit"]["ok"] is False  # the commit is made up
    assert checks["data version"]["ok"]
    assert checks[f"data of {OPEN}"]["ok"]
    assert checks["consent"]["ok"]
    assert "git checkout" in found["rebuild"]["command"]


def test_a_withdrawn_case_its_flipped_twin_and_its_copy_elsewhere_leave_every_live_shard(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    root = world.place.root
    where = ["--workspace", str(root)]
    assert {row["case_id"] for row in read_manifest(root / "data" / OPEN).to_pylist()}.isdisjoint({"p9_0", "p9_1"})
    segfoundry("withdraw", "--case", f"{OPEN}/p8_00", "--reason", "consent", *where, code=2)
    assert not (root / "withdrawn.jsonl").exists()

    # a test case whose flipped copy was in quarantine for its sake
    said = segfoundry("withdraw", "--case", f"{OPEN}/p8_0", "--reason", "consent", "--no-build", *where)
    assert said["twins"] == [f"{OPEN}/p9_0", f"{OPEN}/p9_1"]
    assert said["models"] == [{"name": MODEL_NAME, "version": 1, "aliases": [], "uses": ["tested on"]}]
    lines = [json.loads(line) for line in read_lines(root / "withdrawn.jsonl")]
    assert [line.get("twin_of") for line in lines] == [None, "p8_0", "p8_0"]
    assert [len(line.get("pixels_sha256", ())) for line in lines] == [1, 0, 0]
    assert repository.git(root, "status", "--porcelain") == ""
    again = segfoundry("withdraw", "--case", f"{OPEN}/p8_0", "--reason", "again", "--no-build", *where)
    assert not again["changed"]
    assert len(requests.read_requests(world.place)) == 1

    # a train case that another dataset holds under another name
    said = segfoundry("withdraw", "--case", f"{OPEN}/p0_0", "--reason", WHY, "--actor", "ann", *where)
    copy = next(one for one in said["twins"] if one.startswith(CLOSED))
    assert said["built"] == [f"ingest@{CLOSED}", f"ingest@{OPEN}"] or set(said["built"]) == {
        f"ingest@{CLOSED}",
        f"ingest@{OPEN}",
    }
    assert said["data_version"] == "data-v3"
    assert said["search"] == {
        "ok": True,
        "tombstones": 5,
        "searched": {"datasets": [OPEN, CLOSED], "samples": 6, "decoded": False},
        "evidence": [],
    }
    assert {row["case_id"] for row in read_manifest(root / "data" / OPEN).to_pylist()} == {"p1_0", "p2_0", "p3_0"}
    assert copy.partition("/")[2] not in {row["group_id"] for row in read_manifest(root / "data" / CLOSED).to_pylist()}
    refused = pq.read_table(root / "data" / OPEN / "quarantine.parquet").to_pylist()
    assert {row["case_id"]: row["reason"] for row in refused} == dict.fromkeys(
        ("p0_0", "p8_0", "p9_0", "p9_1"), "withdrawn"
    )
    # what the gate does not hold against a candidate that is not measured on it
    asked = release.withdrawn(world.place)
    assert asked[OPEN] == {"p0_0", "p8_0", "p9_0", "p9_1"}
    closed = pq.read_table(root / "data" / CLOSED / "quarantine.parquet").to_pylist()
    assert asked[CLOSED] == {
        copy.partition("/")[2],
        *(one["case_id"] for one in closed if one["reason"] == "withdrawn"),
    }
    assert run(["audit", "case", f"{OPEN}/p0_0", *where]) == 0  # as people read it
    assert "[gdpr art. 17] letter," in (shown := capsys.readouterr().out)
    assert "see [/data/forms/12]" in shown
    page = root.parent / "leakage.html"
    assert segfoundry("data", "leakage", "--html", str(page), *where)["ok"]
    assert "no crossing" in page.read_text(encoding="utf-8")
    assert segfoundry("audit", "withdrawn", "--shards", *where)["ok"]


def test_the_search_finds_a_withdrawn_picture_that_is_in_the_live_shards(world: World, record: Record) -> None:
    live = world.place.data / OPEN
    aside = live.with_name("aside")
    live.rename(aside)
    try:
        live.mkdir()
        for name in record.files(OPEN, "data-v2"):
            shutil.copy(record.file(OPEN, "data-v2", name), live / name)
        found = search.audit(record, shards=True)
    finally:
        shutil.rmtree(live)
        aside.rename(live)
    assert not found["ok"]
    by = {(one["sample_id"], one["by"]) for one in found["evidence"] if one["dataset"] == OPEN}
    assert by == {
        (f"{OPEN}/{name}", kind) for name in ("p0_0", "p8_0") for kind in ("id", "content", "pixels", "decoded pixels")
    }


def test_the_retraining_is_asked_for_until_a_later_model_is_there(world: World) -> None:
    wanted = requests.open_requests(world.place, world.store.versions(MODEL_NAME))
    assert [one["key"] for one in wanted] == [f"{OPEN}/p8_0", f"{OPEN}/p0_0"]
    assert wanted[1]["models"][0]["uses"] == ["trained on"]
    assert wanted[1]["data_version"] == "data-v2"
    first = world.store.resolve(MODEL_NAME, 1)
    # started from the weights of the model that had learnt from the case
    version = register(world.place, world.store, world.raw.parent / "two", threshold=90.0,
                       start_sha256=first.weights_sha256)  # fmt: skip
    # so it answers the case that was only a test, and not the one that its parent had learnt from
    versions = world.store.versions(MODEL_NAME)
    assert [one["key"] for one in requests.open_requests(world.place, versions)] == [f"{OPEN}/p0_0"]
    assert requests.learnt_from(wanted[1], versions) == {1, version}
    register(world.place, world.store, world.raw.parent / "three", threshold=80.0)
    assert requests.open_requests(world.place, world.store.versions(MODEL_NAME)) == []
    with open_record(world.place) as record:
        seen = case.audit(record, world.store, f"{OPEN}/p0_0")["models"]
    assert [(one["version"], one["use"]) for one in seen] == [(1, "trained on"), (version, "started from version 1")]


def test_what_changed_is_told_by_dataset_and_reason(record: Record) -> None:
    found = changes.audit(record, "data-v1", "data-v2")
    states = {one["dataset"]: (one["state"], one["counts"]) for one in found["datasets"]}
    assert states == {OPEN: ("unchanged", {}), CLOSED: ("added", {"added": 5})}
    found = changes.audit(record, "data-v2", "data-v3")
    told = {one["dataset"]: one for one in found["datasets"]}
    assert found["ok"]
    assert told[OPEN]["counts"] == {"withdrawn": 4}  # two that were held, two that were in quarantine as duplicates
    assert told[CLOSED]["counts"] == {"withdrawn": 2}
    with pytest.raises(UsageError, match="data-v3"):
        changes.audit(record, "data-v2", "data-v9")


def test_pages_hold_the_answers_and_nothing_that_runs_or_loads(world: World, record: Record, tmp_path: Path) -> None:
    found = model.audit(record, world.store, MODEL_NAME, "1")
    assert {one["case_id"] for one in found["withdrawn_cases"] if one["dataset"] == OPEN} == {"p0_0", "p8_0"}
    assert "must not" in found["rebuild"]["verdict"]
    pages: dict[str, Any] = {
        "model": model_page(found, world.place),
        "case": case_page(case.audit(record, world.store, "q7_0"), world.place),
        "data": data_page(changes.audit(record, "data-v2", "data-v3"), world.place),
        "ledger": ledger_page(
            {"ok": True, "entries": 0, "broken_at": None, "problems": [], "drift": []}, [], world.place
        ),
    }
    for name, page in pages.items():
        write_page(tmp_path / f"{name}.html", page)
        text = (tmp_path / f"{name}.html").read_text(encoding="utf-8")
        assert "<script" not in text
        assert "http" not in text.replace("http-equiv", "")
        assert "@media print" in text
    assert all(one["case_id"] in (tmp_path / "model.html").read_text(encoding="utf-8") for one in found["case_list"])
    assert "q7_0" not in (tmp_path / "case.html").read_text(encoding="utf-8")


def test_a_purge_takes_old_shards_from_cache_and_remote_and_leaves_the_answer_why(world: World) -> None:
    root, place, store = world.place.root, world.place, world.store
    where = ["--workspace", str(root)]
    segfoundry("audit", "purge", f"{OPEN}/p1_0", "--yes", *where, code=2)  # was never withdrawn
    segfoundry("audit", "purge", f"{OPEN}/p0_0", *where, code=2)  # nobody is there to confirm
    evaluation = place.state / "evaluations" / "m-1_data-v2_test"
    (evaluation / "overlays").mkdir(parents=True)
    drawn = [
        {"file": f"overlays/00{number}.png", "sample_id": f"{OPEN}/{name}"}
        for number, name in enumerate(["p0_0", "p2_0"])
    ]
    for one in drawn:
        (evaluation / one["file"]).write_bytes(b"a picture")
    write_json(evaluation / "overlays.json", drawn)
    write_json(evaluation / "evaluation.json", {})
    copy = place.state / "revisions" / "data-v2" / OPEN
    (copy / "train").mkdir(parents=True)
    (copy / "train" / "shard-00000.parquet").write_bytes(b"rows")
    told = segfoundry("audit", "purge", f"{OPEN}/p0_0", "--dry-run", *where)
    assert [one["path"] for one in told["local"]] == [
        ".segfoundry/evaluations/m-1_data-v2_test/overlays/000.png",
        f".segfoundry/revisions/data-v2/{OPEN}",
    ]
    assert any("--out" in one for one in told["by_hand"])
    with open_record(place) as record:
        planned = purge.plan(record, store, f"{OPEN}/p0_0")
        shards = [one for one in planned["objects"] if "shard-" in one["file"]]
        assert shards
        assert all(one["in"] == ["cache", "far"] for one in planned["objects"])
        assert not purged.read(place)
        done = purge.carry_out(record, store, planned, actor="ann")
        assert done["removed"] == {"cache": len(planned["objects"]), "far": len(planned["objects"])}
        for one in planned["objects"]:
            assert not record.objects.path(one["md5"]).exists()
        assert done["removed_local"] == 2
        assert not copy.exists()
        assert sorted(path.name for path in evaluation.rglob("*.*")) == ["001.png", "evaluation.json", "overlays.json"]
        assert read_json(evaluation / "overlays.json") == drawn[1:]
        again = purge.carry_out(record, store, purge.plan(record, store, f"{OPEN}/p0_0"), actor="ann")
        assert not again["changed"]
        with pytest.raises(ServiceError, match=r"purged on .* by ann.*cannot be rebuilt"):
            record.file(OPEN, "data-v1", shards[0]["file"].rpartition("/")[2])
        # the live version lost nothing, and manifests still answer
        assert all(record.objects.where(record.files(OPEN, "data-v3").values()).values())
        assert record.file(OPEN, "data-v1", MANIFEST_FILE).is_file()
        told = model.audit(record, store, MODEL_NAME, "1")
    assert "purged on" in next(one["found"] for one in told["rebuild"]["checks"] if one["what"] == f"data of {OPEN}")
    assert repository.git(root, "status", "--porcelain") == ""
    assert [one.action for one in store.ledger.entries()][-1] == "purge"
    assert store.ledger.verify().ok


def test_a_case_that_is_still_live_is_not_purged(world: World) -> None:
    with open_record(world.place) as record, pytest.raises(UsageError, match="no tombstone"):
        purge.plan(record, world.store, f"{OPEN}/p1_0")
    segfoundry(
        "withdraw", "--case", f"{OPEN}/p1_0", "--reason", "x", "--no-build", "--workspace", str(world.place.root)
    )
    with open_record(world.place) as record, pytest.raises(CheckFailed, match="still in the newest data version"):
        purge.plan(record, world.store, f"{OPEN}/p1_0")
