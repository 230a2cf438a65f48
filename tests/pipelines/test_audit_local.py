"""What this machine keeps of a case: found and removed without what belongs to others, also after a kill in between."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from infra.storage import read_json, write_json
from pipelines.audits import local
from pipelines.workspace import Workspace

CASE, OTHER = "Set/p1", "Set/p10"
VERSIONS = [{"data_version": "data-v1", "dataset": "Set"}]


def _evaluation(folder: Path) -> Path:
    """Three pictures of the case and one of another patient, with the figures of both."""
    (folder / "overlays").mkdir(parents=True)
    listed = []
    for number, sample in enumerate([f"{CASE}/z1", f"{OTHER}/z1", f"{CASE}/z2", CASE]):
        file = f"overlays/{number:03d}.png"
        (folder / file).write_bytes(sample.encode())
        listed.append({"file": file, "sample_id": sample})
    (folder / "evaluation.parquet").write_bytes(b"hours of measuring")
    write_json(folder / "evaluation.json", {"summary": {}})
    write_json(folder / "overlays.json", listed)
    return folder


def _decoded(folder: Path, sample: str) -> Path:
    folder.mkdir(parents=True)
    for name in ("images", "instances", "maps"):  # before and behind `index.json` in the order of names
        (folder / f"{name}.npy").write_bytes(sample.encode())
    (folder / "index.json").write_text(json.dumps([{"sample_id": sample, "slice": None}]), encoding="utf-8")
    return folder


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    place = Workspace(tmp_path / "workspace")
    for folder in (place.evaluation, place.state / "evaluations" / "m-1_now_test"):
        _evaluation(folder)
    for key, sample in (("aa", f"{CASE}/z1"), ("bb", f"{OTHER}/z1")):
        _decoded(place.state / "train" / "prepared" / key, sample)
    for version, name in (("data-v1", "Set"), ("data-v1", ".Set.00.part-tmp"), ("data-v1", "More"), ("data-v2", "Set")):
        copy = place.state / "revisions" / version / name
        (copy / "deep").mkdir(parents=True)
        (copy / "deep" / "shard-00000.parquet").write_bytes(b"rows")
    return place


def _left(place: Workspace) -> set[str]:
    return {path.relative_to(place.root).as_posix() for path in place.root.rglob("*") if path.is_file()}


def _gone(place: Workspace) -> set[str]:
    """All that shows the case."""
    return {
        *(f"{folder}/overlays/{number}.png" for number in ("000", "002", "003")
          for folder in ("evaluation", ".segfoundry/evaluations/m-1_now_test")),
        *(f".segfoundry/train/prepared/aa/{name}" for name in
          ("images.npy", "instances.npy", "maps.npy", "index.json")),
        *(f".segfoundry/revisions/data-v1/{name}/deep/shard-00000.parquet" for name in ("Set", ".Set.00.part-tmp")),
    }  # fmt: skip


def test_the_pictures_of_the_case_go_and_the_measuring_stays(place: Workspace) -> None:
    before = _left(place)
    listed = local.kept(place, [CASE], VERSIONS)
    assert {one["what"] for one in listed} == {local.PICTURE, local.COPY, local.DECODED}
    assert all(one["bytes"] for one in listed)
    assert _left(place) == before  # asking changes nothing
    assert local.remove(place, listed, [CASE]) == len(listed) == 9
    assert before - _left(place) == _gone(place)
    for folder in (place.evaluation, place.state / "evaluations" / "m-1_now_test"):
        assert [one["sample_id"] for one in read_json(folder / "overlays.json")] == [f"{OTHER}/z1"]
    assert local.kept(place, [CASE], VERSIONS) == []
    assert local.remove(place, [], [CASE]) == 0


@pytest.mark.parametrize("at", range(12))
def test_a_removal_that_is_killed_anywhere_goes_on(place: Workspace, at: int) -> None:
    before, steps = _left(place), 0

    def killed() -> None:
        nonlocal steps
        steps += 1
        if steps > at:
            raise KeyboardInterrupt

    listed = local.kept(place, [CASE], VERSIONS)
    unlink, rmtree = Path.unlink, shutil.rmtree
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "unlink", lambda path, **more: (killed(), unlink(path, **more)))
        patch.setattr(shutil, "rmtree", lambda path, **more: (killed(), rmtree(path, **more)))
        with pytest.raises(KeyboardInterrupt):
            local.remove(place, listed, [CASE])
    local.remove(place, local.kept(place, [CASE], VERSIONS), [CASE])
    assert before - _left(place) == _gone(place)
    assert local.kept(place, [CASE], VERSIONS) == []


def test_pictures_that_are_gone_are_listed_as_gone_while_their_list_names_them(place: Workspace) -> None:
    (place.evaluation / "overlays" / "000.png").unlink()
    sizes = {one["path"]: one["bytes"] for one in local.kept(place, [CASE], [])}
    assert sizes["evaluation/overlays/000.png"] is None
    assert sizes["evaluation/overlays/002.png"] == len(f"{CASE}/z2")


def test_a_link_to_the_live_version_is_no_copy(place: Workspace) -> None:
    (place.data / "Set").mkdir(parents=True)
    link = place.state / "revisions" / "data-v3" / "Set"
    link.parent.mkdir()
    link.symlink_to(place.data / "Set")
    assert local.kept(place, [], [{"data_version": "data-v3", "dataset": "Set"}]) == []


def test_what_a_killed_command_left_half_written_is_named(place: Workspace) -> None:
    assert local.half_written(place) == []
    left = [
        place.root / ".evaluation.part-tmp",
        place.state / "evaluations" / ".m-1_now_test.part-tmp",
        place.state / "train" / "prepared" / "cc.77.part-tmp",
    ]
    for folder in left:
        folder.mkdir()
        (folder / "000.png").write_bytes(b"somebody")
    _evaluation(place.state / "evaluations" / ".m-2.old-part-tmp")  # that has its list is searched like any other
    said = local.half_written(place)
    assert [one.partition(":")[0] for one in said] == [folder.relative_to(place.root).as_posix() for folder in left]
    assert len(local.kept(place, [CASE], [])) == 3 * 3 + 1
