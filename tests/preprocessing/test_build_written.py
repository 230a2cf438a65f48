"""What a build writes, for others to read: names, exports, codecs."""

from __future__ import annotations

import json
import re
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from preprocessing import schema
from preprocessing.build import build_dataset, run_case
from preprocessing.diff import diff
from preprocessing.export import export
from preprocessing.harmonize.payload import strip_jpeg
from tests.preprocessing.test_build import DEEP, FLAT, PARAMS, build, contents, inventory_of, reasons
from tests.preprocessing.test_build import flat as flat


def test_a_closed_dataset_is_written_without_its_names(flat: Path, tmp_path: Path) -> None:
    (flat / "masks/case05.png").unlink()
    build(replace(FLAT, public=False), flat, tmp_path / "out")
    assert not any(b"case0" in payload for payload in contents(tmp_path / "out").values())
    assert next(iter(reasons(tmp_path / "out"))).startswith("c-")


def test_exports_open_in_their_own_tools(flat: Path, tmp_path: Path) -> None:
    import webdataset
    from pycocotools.coco import COCO

    build(FLAT, flat, tmp_path / "out")
    said = export(tmp_path / "out", tmp_path / "coco", "coco")
    opened = COCO(str(tmp_path / "coco/annotations.json"))
    assert said["samples"] == len(opened.getImgIds()) == 12
    assert said["objects"] == len(opened.getAnnIds()) == 24
    image = opened.loadImgs(1)[0]
    truth = np.asarray(Image.open(flat / "masks" / f"{image['sample_id'].split('/')[1]}.png")) > 0
    masks = [opened.annToMask(item) for item in opened.loadAnns(opened.getAnnIds(imgIds=[1]))]
    assert np.array_equal(np.any(masks, axis=0), truth)
    export(tmp_path / "out", tmp_path / "wds", "webdataset", split="train")
    tar = tmp_path / "wds/train-00000.tar"
    samples = list(webdataset.WebDataset(f"file:{tar}", shardshuffle=False, empty_check=False))
    assert len(samples) == schema.read_dataset_file(tmp_path / "out")["splits"]["train"]
    assert all(json.loads(sample["json"])["split"] == "train" and sample["png"][:4] == b"\x89PNG" for sample in samples)


def test_jpeg_passes_through_without_what_it_says_about_people(tmp_path: Path) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (33, 47, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x010E] = "patient CANARY"
    path = tmp_path / "a.jpg"
    for options in ({}, {"progressive": True}):
        Image.fromarray(pixels).save(path, exif=exif, comment=b"CANARY two", icc_profile=b"CANARY three", **options)
        data = path.read_bytes() + b"CANARY after the end"
        assert data.count(b"CANARY") == 4
        stripped = strip_jpeg(data)
        assert stripped is not None
        assert b"CANARY" not in stripped
        clean = tmp_path / "b.jpg"
        clean.write_bytes(stripped)
        assert np.array_equal(np.asarray(Image.open(clean)), np.asarray(Image.open(path)))
    assert strip_jpeg(data[:200]) is None


def test_the_case_function_travels_to_another_process() -> None:
    import pickle

    assert pickle.loads(pickle.dumps(run_case)) is run_case
    assert pickle.loads(pickle.dumps(DEEP)) == DEEP


@pytest.mark.parametrize("codec", ["htj2k", "zstd"])
def test_another_codec_is_another_recipe_with_the_same_samples(flat: Path, tmp_path: Path, codec: str) -> None:
    plain = build(FLAT, flat, tmp_path / "png")
    params = {**PARAMS, "harmonize": {**PARAMS["harmonize"], "image_codec": codec}}
    out = tmp_path / codec
    made = build_dataset(
        FLAT, flat, inventory_of(flat), out, params, pseudonym_key=b"k", case_cache=None, source_kind="mirror"
    )
    assert made["manifest_digest"] != plain["manifest_digest"]
    assert made["recipe_sha256"] != plain["recipe_sha256"]
    old, new = schema.read_manifest(tmp_path / "png"), schema.read_manifest(out)
    assert set(new["image_format"].to_pylist()) == {codec}
    assert new["sample_id"].equals(old["sample_id"])
    assert new["content_sha256"].equals(old["content_sha256"])  # of decoded pixels, whatever they are stored as
    counts = diff(old, new)["counts"]
    assert (counts["changed_pixels"], counts["changed_labels"], counts["added"], counts["removed"]) == (0, 0, 0, 0)
    assert (tmp_path / "png" / schema.FINGERPRINT_FILE).read_bytes() == (out / schema.FINGERPRINT_FILE).read_bytes()
    pictures = {path.stem: np.asarray(Image.open(path)) for path in (flat / "images").iterdir()}
    for kind, folder, pattern in (("coco", "images", "*.png"), ("nnunet", "images*", "*_0000.png")):
        export(out, tmp_path / kind / "Dataset001_squares", kind)
        files = sorted((tmp_path / kind / "Dataset001_squares").glob(f"{folder}/{pattern}"))
        assert len(files) == 12
        for file in files:
            assert np.array_equal(np.asarray(Image.open(file)), pictures[re.search(r"case\d\d", file.name)[0]])  # type: ignore[index]
    export(out, tmp_path / "webdataset" / codec, "webdataset")
    export(tmp_path / "png", tmp_path / "webdataset" / "png", "webdataset")
    seen = 0
    for tar in sorted((tmp_path / "webdataset" / codec).glob("*.tar")):
        with tarfile.open(tar) as members, tarfile.open(tmp_path / "webdataset/png" / tar.name) as others:
            for name in members.getnames():
                ours, theirs = (each.extractfile(name).read() for each in (members, others))  # type: ignore[union-attr]
                if name.endswith(".png"):
                    assert ours == theirs
                    seen += 1
                else:
                    assert json.loads(ours)["image_format"] == "png"
    assert seen == 12
