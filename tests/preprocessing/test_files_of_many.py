"""Files about many images through a whole build: every image and every file is accounted for, and nothing twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import tifffile

from infra.storage import sha256_file
from preprocessing import schema
from preprocessing.build import build_dataset
from preprocessing.cards import ByChannel, ByValue, DatasetCard, Layout, Tiles
from preprocessing.readers.coco import match_images
from tests.preprocessing.made import card_of
from tests.preprocessing.readers.test_polygons import SQUARE, coco_card, coco_file, picture

PARAMS: dict[str, Any] = {
    "harmonize": {"orientation": "LPS", "min_object_area_px": 1},
    "shards": {"target_bytes": 1_000_000},
    "splits": {"key": "segfoundry", "val": 0.2, "test": 0.2},
}


def built(card: DatasetCard, root: Path, out: Path) -> dict[str, Any]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    inventory = [
        {"file": path.relative_to(root).as_posix(), "bytes": path.stat().st_size, "sha256": sha256_file(path)}
        for path in files
    ]
    return build_dataset(card, root, inventory, out, PARAMS, pseudonym_key=b"k", case_cache=None, source_kind="mirror")


def test_a_coco_dataset(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    polygon = {"category_id": 1, "segmentation": [[value for point in SQUARE for value in point]]}
    names = ["1.png", "2.png", "3.png", "gone.png"]
    coco_file(root, [{"id": index, "file_name": name} for index, name in enumerate(names)],
              [{"image_id": index, **polygon} for index in range(4)])  # fmt: skip
    for name in (*names[:3], "untold.png"):
        picture(root, name)
    counts = built(coco_card(), root, tmp_path / "out")["counts"]
    assert (counts["cases_found"], counts["cases_kept"], counts["cases_quarantined"]) == (5, 3, 2)
    assert (counts["files_found"], counts["files_used"], counts["files_quarantined"]) == (5, 4, 1)
    refused = pq.read_table(tmp_path / "out" / schema.QUARANTINE_FILE).to_pylist()
    assert {(row["reason"], row["file"]) for row in refused} == {
        ("image_missing", "x/train/annotations/train.json"),
        ("label_missing", "x/train/images/untold.png"),
    }
    assert set(schema.read_manifest(tmp_path / "out").column("split").to_pylist()) == {"train"}


def test_a_stack_and_a_slide(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    root = tmp_path / "raw"
    root.mkdir()
    np.save(root / "images.npy", rng.integers(0, 256, (4, 20, 24, 3), dtype=np.uint8))
    np.save(root / "labels.npy", (rng.random((3, 20, 24, 2)) > 0.5).astype(np.uint8))
    stack = Layout(image=r"(?P<case>)images\.npy", label=r"(?P<case>)labels\.npy", stacked=True)
    counts = built(card_of(ByChannel({0: "gland", 1: "cell nucleus"}), stack), root, tmp_path / "stack")["counts"]
    assert (counts["cases_kept"], counts["cases_quarantined"], counts["files_used"]) == (3, 1, 2)
    (row,) = pq.read_table(tmp_path / "stack" / schema.QUARANTINE_FILE).to_pylist()
    assert (row["case_id"], row["reason"], row["file"]) == ("00003", "label_missing", "labels.npy")

    for path in root.iterdir():
        path.unlink()
    for name in ("a", "b"):
        tifffile.imwrite(root / f"{name}.tif", rng.integers(0, 256, (100, 130), dtype=np.uint8), tile=(32, 32))
        tifffile.imwrite(root / f"{name}_mask.tif", np.eye(100, 130, dtype=np.uint8), tile=(32, 32))
    slides = Layout(
        image=r"(?P<case>[ab])\.tif", label=r"(?P<case>[ab])_mask\.tif", tiles=Tiles(size_px=64)
    )  # fmt: skip
    counts = built(card_of(ByValue({1: "gland"}), slides), root, tmp_path / "slides")["counts"]
    assert (counts["cases_kept"], counts["samples"]) == (2, 2 * 6)
    manifest = schema.read_manifest(tmp_path / "slides")
    for name in ("a", "b"):  # a slide is one group, and so all in one split
        rows = [row for row in manifest.to_pylist() if row["case_id"] == name]
        assert len({row["group_id"] for row in rows}) == len({row["split"] for row in rows}) == 1


def test_images_are_matched_by_the_ends_of_their_paths() -> None:
    files = ["a/train/1.png", "a/val/1.png", "a/train/2.png", "b/3.png", "c/3.png", "d/4.png"]
    assert match_images(files, ["train/1.png", "val/1.png", "2.png", "3.png", "x\\y\\4.png", "5.png"]) == {
        "a/train/1.png": "train/1.png",
        "a/val/1.png": "val/1.png",
        "a/train/2.png": "2.png",
        "d/4.png": "x\\y\\4.png",  # and 3.png is two files' name: whose it is, nobody can tell
    }
