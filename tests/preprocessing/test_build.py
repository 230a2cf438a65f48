"""Builds of small made-up datasets: faults are caught for what they are, and nothing is done twice."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import SimpleITK as sitk
from PIL import Image

from infra.errors import DataError
from infra.storage import TEMPORARY_SUFFIX, sha256_file
from preprocessing import schema
from preprocessing.build import build_dataset
from preprocessing.cards import Binary, ByValue, DatasetCard, Intensity, Layout, Licence, Segments
from preprocessing.check import check
from preprocessing.diff import diff

PARAMS: dict[str, Any] = {
    "harmonize": {"orientation": "LPS", "min_object_area_px": 1},
    "shards": {"target_bytes": 16_000},  # 11 to 13 cases of `draw` make as many shards
    "splits": {"key": "segfoundry", "val": 0.2, "test": 0.2},
}
FLAT = DatasetCard(
    name="made_up",
    title="Squares",
    modality="ultrasound",
    licence=Licence("none"),
    citation="nobody",
    homepage="https://example.org",
    layout_checked="made here",
    layouts=(Layout(image=r"images/(?P<case>[^/]+)\.png", label=r"masks/(?P<case>[^/]+)\.png"),),
    labels=Binary("polyp"),
    instances="components",
    searched=("polyp",),
)
DEEP = replace(
    FLAT,
    name="made_up_volumes",
    layouts=(
        Layout(image=r"(?P<case>[^/]+)/image\.nii\.gz", label=r"(?P<case>[^/]+)/label\.nii\.gz"),
        Layout(
            image=r"(?P<case>dicom[^/]*)/\d+\.dcm",
            label=r"(?P<case>dicom[^/]*)/seg\.seg",
            labels=Segments({"liver": "liver"}),
        ),
    ),
    labels=ByValue({1: "liver", 2: "lesion"}),
    intensity=Intensity("percentile", (0.5, 99.5)),
    searched=("liver",),
)


def inventory_of(root: Path) -> list[dict[str, Any]]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return [
        {"file": path.relative_to(root).as_posix(), "bytes": path.stat().st_size, "sha256": sha256_file(path)}
        for path in files
    ]


def build(card: DatasetCard, root: Path, out: Path, cache: Path | None = None, **options: Any) -> dict[str, Any]:
    return build_dataset(
        card,
        root,
        inventory_of(root),
        out,
        PARAMS,
        pseudonym_key=b"k",
        case_cache=cache,
        source_kind="mirror",
        **options,
    )


def draw(root: Path, name: str, seed: int, mask_size: tuple[int, int] = (40, 50)) -> None:
    rng = np.random.default_rng(seed)
    (root / "images").mkdir(parents=True, exist_ok=True)
    (root / "masks").mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (40, 50), dtype=np.uint8)).save(root / "images" / f"{name}.png")
    mask = np.zeros(mask_size, dtype=np.uint8)
    mask[5:12, 6 : 8 + seed % 9] = 255
    mask[20:24, 30:33] = 255
    Image.fromarray(mask).save(root / "masks" / f"{name}.png")


def volume(folder: Path, values: tuple[int, ...] = (1, 2), shape: tuple[int, int, int] = (4, 6, 5)) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(np.random.default_rng(1).normal(size=(4, 6, 5)).astype(np.float32))
    image.SetSpacing((1.0, 1.0, 3.0))
    label = np.zeros(shape, dtype=np.uint8)
    for index, value in enumerate(values):
        label[index, 1:4, 2:4] = value
    mask = sitk.GetImageFromArray(label)
    mask.SetSpacing((1.0, 1.0, 3.0))
    sitk.WriteImage(image, str(folder / "image.nii.gz"))
    sitk.WriteImage(mask, str(folder / "label.nii.gz"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def reasons(folder: Path) -> dict[str, tuple[str, str]]:
    rows = pq.read_table(folder / schema.QUARANTINE_FILE).to_pylist()
    return {row["case_id"]: (row["reason"], row["file"]) for row in rows}


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    root = tmp_path / "raw"
    for index in range(12):
        draw(root, f"case{index:02d}", index)
    return root


def test_faulty_pictures_are_refused_and_the_others_go_on(flat: Path, tmp_path: Path) -> None:
    broken = flat / "images/case01.png"
    broken.write_bytes(broken.read_bytes()[:600])
    draw(flat, "case02", 2, mask_size=(41, 50))
    Image.fromarray(np.full((40, 50), 130, dtype=np.uint8)).save(flat / "masks/case03.png")
    (flat / "masks/case04.png").write_bytes(b"no picture at all")
    (flat / "masks/case05.png").unlink()
    (flat / "images/case06.png").unlink()
    (flat / "notes.xyz").write_text("?")
    (flat / "README.md").write_text("about")
    report = build(FLAT, flat, tmp_path / "out")
    assert reasons(tmp_path / "out") == {
        "case01": ("unreadable", "images/case01.png"),
        "case02": ("mask_size", "masks/case02.png"),
        "case03": ("unknown_label", "masks/case03.png"),
        "case04": ("unreadable", "masks/case04.png"),
        "case05": ("label_missing", "images/case05.png"),
        "case06": ("image_missing", "masks/case06.png"),
        "file:notes.xyz": ("not_on_card", "notes.xyz"),
    }
    counts = report["counts"]
    assert (counts["cases_found"], counts["cases_kept"], counts["cases_quarantined"]) == (13, 6, 7)
    assert (counts["files_found"], counts["files_used"]) == (24, 12)
    assert (counts["files_quarantined"], counts["files_not_data"]) == (11, 1)
    row = pq.read_table(tmp_path / "out" / schema.QUARANTINE_FILE).to_pylist()[1]
    assert "50 x 40" in row["expected"]
    assert "50 x 41" in row["found"]
    assert str(tmp_path) not in json.dumps(pq.read_table(tmp_path / "out" / schema.QUARANTINE_FILE).to_pylist())
    said = check(FLAT, flat)
    assert not said["ok"]
    assert said["cases_kept"] == 6
    assert said["reasons"]["mask_size"] == 1


def test_faulty_volumes_are_refused_and_the_others_go_on(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    for name in ("fine", "shifted", "unknown", "size", "torn", "torn_label", "fraction"):
        volume(root / name)
    volume(root / "unknown", values=(1, 7))
    volume(root / "size", shape=(4, 6, 6))
    moved = sitk.ReadImage(str(root / "shifted/label.nii.gz"))
    moved.SetOrigin((0.0, 5.0, 0.0))
    sitk.WriteImage(moved, str(root / "shifted/label.nii.gz"))
    for file in (root / "torn/image.nii.gz", root / "torn_label/label.nii.gz"):
        file.write_bytes(file.read_bytes()[:-30])
    half = sitk.GetImageFromArray(np.full((4, 6, 5), 0.5, dtype=np.float32))
    half.CopyInformation(sitk.ReadImage(str(root / "fraction/image.nii.gz")))
    sitk.WriteImage(half, str(root / "fraction/label.nii.gz"))
    (root / "dicom1").mkdir()
    (root / "dicom1/1.dcm").write_bytes(b"\0" * 200)
    (root / "dicom1/seg.seg").write_bytes(b"\0" * 200)
    build(DEEP, root, tmp_path / "out")
    assert reasons(tmp_path / "out") == {
        "shifted": ("mask_grid", "shifted/label.nii.gz"),
        "unknown": ("unknown_label", "unknown/label.nii.gz"),
        "size": ("mask_size", "size/label.nii.gz"),
        "torn": ("unreadable", "torn/image.nii.gz"),
        "torn_label": ("unreadable", "torn_label/label.nii.gz"),
        "fraction": ("unknown_label", "fraction/label.nii.gz"),
        "dicom1": ("unreadable", "dicom1/1.dcm"),
    }
    rows = schema.read_manifest(tmp_path / "out").to_pylist()
    assert [row["slice_index"] for row in rows] == [0, 1, 2, 3]
    assert [row["absent"] for row in rows] == [["lesion"], ["liver"], ["lesion", "liver"], ["lesion", "liver"]]
    assert {row["axis"] for row in rows} == {"z"}
    assert rows[0]["spacing_mm_yx"] == [1.0, 1.0]


def test_a_dataset_of_which_nothing_can_be_used_is_an_empty_version(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    for index in range(3):
        draw(root, f"case{index}", index, mask_size=(40, 51))
    said = build(FLAT, root, tmp_path / "out")
    assert said["counts"]["cases_found"] == said["counts"]["cases_quarantined"] == 3
    assert (said["counts"]["samples"], said["counts"]["objects"], said["shards"]) == (0, 0, {})
    assert {reason for reason, _ in reasons(tmp_path / "out").values()} == {"mask_size"}
    assert schema.read_manifest(tmp_path / "out").num_rows == 0
    assert "mask_size" in (tmp_path / "out" / schema.CARD_FILE).read_text(encoding="utf-8")


def test_a_second_build_is_the_same_work_none_and_the_same_bytes(flat: Path, tmp_path: Path) -> None:
    first = build(FLAT, flat, tmp_path / "a", tmp_path / "cache")
    again = build(FLAT, flat, tmp_path / "a", tmp_path / "cache")
    assert (first["reused_cases"], again["reused_cases"]) == (0, 12)
    scattered: Callable[..., Iterator[Any]] = lambda function, items: map(function, random.sample(items, len(items)))  # noqa: E731
    build(FLAT, flat, tmp_path / "b", None, map_cases=scattered)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_killed_build_goes_on(flat: Path, tmp_path: Path) -> None:
    build(FLAT, flat, tmp_path / "whole")

    def dies(function: Callable[[Any], Any], items: list[Any]) -> Iterator[Any]:
        for item in items[:5]:
            yield function(item)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(FLAT, flat, tmp_path / "out", tmp_path / "cache", map_cases=dies)
    (tmp_path / "out" / f".shard-00000.parquet.abcd{TEMPORARY_SUFFIX}").write_bytes(b"half")
    (tmp_path / "out" / "shard-00099.parquet").write_bytes(b"stale")
    assert not (tmp_path / "out" / schema.DATASET_FILE).exists()
    report = build(FLAT, flat, tmp_path / "out", tmp_path / "cache")
    assert report["reused_cases"] == 5
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 1.0])
def test_a_damaged_cache_entry_is_made_again(flat: Path, tmp_path: Path, share: float) -> None:
    build(FLAT, flat, tmp_path / "out", tmp_path / "cache")
    before = contents(tmp_path / "out")
    entry = sorted((tmp_path / "cache" / FLAT.name).glob("*.case"))[0]
    payload = bytearray(entry.read_bytes())
    payload[int(share * (len(payload) - 1))] ^= 1
    entry.write_bytes(bytes(payload))
    for path in (tmp_path / "out").glob("shard-*"):
        path.unlink()  # else no shard is put together, and nobody reads the entry
    assert build(FLAT, flat, tmp_path / "out", tmp_path / "cache")["reused_cases"] == 11
    assert contents(tmp_path / "out") == before
    assert build(FLAT, flat, tmp_path / "out", tmp_path / "cache")["reused_cases"] == 12


def test_a_shortened_cache_entry_is_made_again(flat: Path, tmp_path: Path) -> None:
    build(FLAT, flat, tmp_path / "out", tmp_path / "cache")
    before = contents(tmp_path / "out")
    for entry, keep in zip(sorted((tmp_path / "cache" / FLAT.name).glob("*.case")), (0, 5, 60, 200, -1), strict=False):
        entry.write_bytes(entry.read_bytes()[:keep])
    assert build(FLAT, flat, tmp_path / "out", tmp_path / "cache")["reused_cases"] == 7
    assert contents(tmp_path / "out") == before


def test_only_the_shards_of_changed_cases_are_put_together(flat: Path, tmp_path: Path) -> None:
    out, cache = tmp_path / "out", tmp_path / "cache"
    shards = build(FLAT, flat, out, cache)["shards"]
    assert len(shards) > 2
    times = {name: (out / name).stat().st_mtime_ns for name in shards}
    assert build(FLAT, flat, out, cache)["reused_shards"] == len(shards)
    draw(flat, "case03", 77)
    report = build(FLAT, flat, out, cache)
    assert report["reused_cases"] == 11
    assert report["reused_shards"] == len(shards) - 1
    assert sum((out / name).stat().st_mtime_ns != time for name, time in times.items()) == 1
    build(FLAT, flat, tmp_path / "fresh")
    assert contents(out) == contents(tmp_path / "fresh")


def test_a_shard_that_was_put_back_is_known_and_one_that_was_changed_is_not(flat: Path, tmp_path: Path) -> None:
    out, cache = tmp_path / "out", tmp_path / "cache"
    shards = sorted(build(FLAT, flat, out, cache)["shards"])
    before = contents(out)
    put_back, changed = out / shards[0], out / shards[1]
    payload = put_back.read_bytes()
    put_back.unlink()
    put_back.write_bytes(payload)
    other = bytearray(changed.read_bytes())
    other[40] ^= 1
    changed.write_bytes(bytes(other))
    assert build(FLAT, flat, out, cache)["reused_shards"] == len(shards) - 1
    assert contents(out) == before


def test_a_group_that_moves_to_another_split_makes_its_shard_again(flat: Path, tmp_path: Path) -> None:
    out, cache = tmp_path / "out", tmp_path / "cache"
    build(FLAT, flat, out, cache)
    moved = replace(FLAT, family="another")  # groups are hashed under another name: the rows' places change
    build(moved, flat, out, cache)
    build(moved, flat, tmp_path / "fresh")
    assert contents(out) == contents(tmp_path / "fresh")


def test_an_added_case_costs_one_case_and_moves_nobody(flat: Path, tmp_path: Path) -> None:
    build(FLAT, flat, tmp_path / "out", tmp_path / "cache")
    old, files = schema.read_manifest(tmp_path / "out"), contents(tmp_path / "out")
    draw(flat, "case99", 99)
    assert build(FLAT, flat, tmp_path / "out", tmp_path / "cache")["reused_cases"] == 12
    new = schema.read_manifest(tmp_path / "out")
    said = diff(old, new)
    assert said["counts"] == {
        "added": 1, "removed": 0, "changed_labels": 0, "changed_pixels": 0, "pixels_not_told": 0, "moved": 0,
        "regrouped": 0, "other_recipe": 0, "same": 12,
    }  # fmt: skip
    after = contents(tmp_path / "out")
    shards = [name for name in files if name.startswith("shard-")]
    assert len(shards) > 1
    assert sum(files[name] != after[name] for name in shards) == 1


def test_a_changed_mask_and_a_changed_picture_are_told_apart(flat: Path, tmp_path: Path) -> None:
    build(FLAT, flat, tmp_path / "out")
    old = schema.read_manifest(tmp_path / "out")
    Image.fromarray(np.zeros((40, 50), dtype=np.uint8)).save(flat / "masks/case03.png")
    Image.fromarray(np.eye(40, 50, dtype=np.uint8)).save(flat / "images/case04.png")
    build(FLAT, flat, tmp_path / "out")
    said = diff(old, schema.read_manifest(tmp_path / "out"))
    assert (said["changed_labels"], said["changed_pixels"]) == (["made_up/case03"], ["made_up/case04"])


def test_a_source_that_changed_since_the_scan_stops_the_build(flat: Path, tmp_path: Path) -> None:
    inventory = inventory_of(flat)
    options: dict[str, Any] = {"pseudonym_key": b"k", "case_cache": None, "source_kind": "mirror"}
    draw(flat, "case03", 77)
    with pytest.raises(DataError, match=r"case03\.png"):
        build_dataset(FLAT, flat, inventory, tmp_path / "out", PARAMS, **options)
    (flat / "images/case05.png").unlink()
    with pytest.raises(DataError, match=r"gone, first images/case05\.png"):
        build_dataset(FLAT, flat, inventory, tmp_path / "out", PARAMS, **options)
    assert not (tmp_path / "out" / schema.DATASET_FILE).exists()
    with pytest.raises(DataError, match="folder is missing"):
        build_dataset(FLAT, tmp_path / "nowhere", inventory, tmp_path / "out", PARAMS, **options)
