"""Builds and versions in which a picture or patient lies on both sides."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from infra.errors import DataError
from preprocessing import hashes, schema
from preprocessing.cards import Layout
from preprocessing.leakage import Version, leakage, refuse, version_of
from preprocessing.splits import split_of
from tests.preprocessing.pictures import NEAR, Picture, scan, volume
from tests.preprocessing.test_build import DEEP, FLAT, PARAMS, build, contents, reasons


def name_in(split: str, dataset: str, skip: int = 0) -> str:
    """A case name that the build puts in `split`."""
    shares = PARAMS["splits"]
    names = (f"case{number:03d}" for number in range(skip, 999))
    return next(
        name for name in names if split_of(dataset, name, shares["key"], shares["val"], shares["test"]) == split
    )


def draw(root: Path, name: str, pixels: Picture, offset: int = 0) -> None:
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(root / "images" / f"{name}.png")
    mask = np.zeros(pixels.shape[:2], dtype=np.uint8)
    mask[5 + offset : 20 + offset, 6:30] = 255
    Image.fromarray(mask).save(root / "masks" / f"{name}.png")


def picture(seed: int) -> Picture:
    return scan(np.random.default_rng(seed))


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    root = tmp_path / "raw"
    for seed, split in enumerate(("train", "train", "val", "test", "test")):
        draw(root, name_in(split, FLAT.name, 10 * seed), picture(seed))
    return root


def test_a_twin_in_a_lower_split_is_quarantined_with_what_it_shows(raw: Path, tmp_path: Path) -> None:
    test, val, train = (
        name_in("test", FLAT.name, 100),
        name_in("val", FLAT.name, 100),
        name_in("train", FLAT.name, 100),
    )
    draw(raw, test, picture(50))
    draw(raw, train, NEAR["jpeg"](picture(50)[:, ::-1].copy(), np.random.default_rng(0)))
    build(FLAT, raw, tmp_path / "a")
    assert reasons(tmp_path / "a") == {train: ("duplicate", f"images/{train}.png")}
    found = pq.read_table(tmp_path / "a" / schema.QUARANTINE_FILE).to_pylist()[0]["found"]
    assert found.startswith(f"the picture of made_up/{test}, which is in test (correlation 0.9")
    draw(raw, val, picture(50), offset=9)  # equal pixels, another mask
    report = build(FLAT, raw, tmp_path / "b")
    assert set(reasons(tmp_path / "b")) == {train, val}
    assert report["counts"]["cases_found"] == report["counts"]["cases_kept"] + 2
    assert leakage({"made_up": version_of(tmp_path / "b")})["ok"]


def test_a_twin_that_comes_or_goes_rewrites_the_shard_of_the_case_that_it_sets_aside(raw: Path, tmp_path: Path) -> None:
    out, cache = tmp_path / "out", tmp_path / "cache"
    train, test = name_in("train", FLAT.name, 100), name_in("test", FLAT.name, 100)
    draw(raw, train, picture(50))
    build(FLAT, raw, out, cache)
    before = contents(out)
    draw(raw, test, picture(50), offset=9)
    assert build(FLAT, raw, out, cache)["reused_cases"] == 6
    assert set(reasons(out)) == {train}
    build(FLAT, raw, tmp_path / "fresh")
    assert contents(out) == contents(tmp_path / "fresh")
    assert build(FLAT, raw, out, cache)["reused_shards"] == len(list(out.glob("shard-*")))
    for folder in ("images", "masks"):
        (raw / folder / f"{test}.png").unlink()
    build(FLAT, raw, out, cache)
    assert contents(out) == before


def test_twins_of_one_split_and_slices_of_one_case_stay(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    draw(root, name_in("train", FLAT.name), picture(1))
    draw(root, name_in("train", FLAT.name, 50), picture(1))
    draw(root, name_in("test", FLAT.name), picture(2))
    report = build(FLAT, root, tmp_path / "out")
    assert report["counts"]["cases_kept"] == 3


def test_a_picture_in_two_datasets_is_a_crossing_and_refused(raw: Path, tmp_path: Path) -> None:
    other = replace(FLAT, name="other")
    elsewhere = tmp_path / "other_raw"
    first, second, third = (name_in("test", "other", skip) for skip in (0, 50, 100))
    trained = [name_in("train", FLAT.name, 10 * seed) for seed in (0, 1)]
    draw(elsewhere, first, picture(0))  # the same picture and mask as a training case
    draw(elsewhere, second, picture(1), offset=7)  # the same picture, another mask
    draw(elsewhere, third, NEAR["resize"](picture(60), np.random.default_rng(1)))
    draw(raw, name_in("train", FLAT.name, 200), picture(60))
    build(FLAT, raw, tmp_path / "a")
    build(other, elsewhere, tmp_path / "b")
    found = leakage({"made_up": version_of(tmp_path / "a"), "other": version_of(tmp_path / "b")})
    assert not found["ok"]
    assert found["matrix"] == [
        {"train": "made_up", "part": "train", "held_out": "other", "split": "test",
         "groups": 0, "contents": 1, "pixels": 1, "near": 1, "volumes": 0}
    ]  # fmt: skip
    assert [f"made_up/{trained[0]}", f"other/{first}"] in [one["samples"] for one in found["examples"]]
    with pytest.raises(DataError, match=r"made_up \(train\) and other \(test\) share 1 contents, 1 pixels, 1 near"):
        refuse(found)


def test_a_group_on_both_sides_is_a_crossing(raw: Path, tmp_path: Path) -> None:
    build(FLAT, raw, tmp_path / "a")
    whole = version_of(tmp_path / "a")
    assert leakage({"a": whole})["ok"]
    manifest = whole.manifest
    held = manifest.set_column(
        manifest.schema.get_field_index("split"), manifest.schema.field("split"), [["test"] * manifest.num_rows]
    )
    found = leakage({"a": whole, "b": Version(held, whole.hashes, whole.load)})
    trained = manifest.column("split").to_pylist().count("train")
    assert found["matrix"][0] | {"near": 0} == {
        "train": "a", "part": "train", "held_out": "b", "split": "test",
        "groups": trained, "contents": trained, "pixels": 0, "near": 0, "volumes": 0,
    }  # fmt: skip
    assert found["matrix"][1]["part"] == "val"


def test_an_older_version_without_hashes_gives_the_same_ones(raw: Path, tmp_path: Path) -> None:
    build(FLAT, raw, tmp_path / "a")
    written = hashes.of_version(tmp_path / "a")
    (tmp_path / "a" / schema.HASHES_FILE).unlink()
    assert hashes.of_version(tmp_path / "a").equals(written)


def test_hashes_of_volumes_are_the_same_from_the_shards(tmp_path: Path) -> None:
    import SimpleITK as sitk

    root = tmp_path / "raw"
    for number in range(3):
        folder = root / f"v{number}"
        folder.mkdir(parents=True)
        image = sitk.GetImageFromArray(volume(np.random.default_rng(number), (12, 30, 34)))
        image.SetSpacing((1.0, 1.0, 3.0))
        mask = sitk.GetImageFromArray(np.pad(np.ones((2, 5, 5), np.uint8), ((4, 6), (10, 15), (9, 20))))
        mask.CopyInformation(image)
        sitk.WriteImage(image, str(folder / "image.nii.gz"))
        sitk.WriteImage(mask, str(folder / "label.nii.gz"))
    build(DEEP, root, tmp_path / "a")
    written = hashes.of_version(tmp_path / "a")
    kinds = written.column("kind").to_pylist()
    assert (kinds.count("slice"), kinds.count("volume")) == (36, 3)
    (tmp_path / "a" / schema.HASHES_FILE).unlink()
    assert hashes.of_version(tmp_path / "a").equals(written)


def test_all_cases_of_a_group_leave_together_and_a_closed_dataset_shows_no_name(raw: Path, tmp_path: Path) -> None:
    closed = replace(FLAT, public=False, group=r"^(case\d+)", layouts=(
        Layout(image=r"images/(?P<case>[^/]+)\.png", label=r"masks/(?P<case>[^/]+)\.png"),
    ))  # fmt: skip
    train, test = name_in("train", FLAT.name, 300), name_in("test", FLAT.name, 300)
    for part, seed in (("_a", 70), ("_b", 71)):
        draw(raw, train + part, picture(seed))
    draw(raw, test, picture(71))
    build(closed, raw, tmp_path / "out")
    assert [reason for reason, _ in reasons(tmp_path / "out").values()] == ["duplicate", "duplicate"]
    assert not any(
        train.encode() in payload or test.encode() in payload for payload in contents(tmp_path / "out").values()
    )
