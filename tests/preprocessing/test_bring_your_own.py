"""Every card of docs/bring-your-own-data.md is ingested from files of its layout, and the drawn truth comes out.

The YAML blocks are taken from the page: the page cannot say what does not work.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pyarrow.parquet as pq
import pydicom
import pytest
import SimpleITK as sitk
import tifffile
from numpy.typing import NDArray
from PIL import Image
from pydicom.sr.coding import Code

from infra.storage import sha256_file
from preprocessing.build import build_dataset
from preprocessing.check import check
from preprocessing.schema import rle
from preprocessing.yaml_card import read_card
from tests.made_dicom import phantom, series, structure_set

PAGE = Path(__file__).parents[2] / "docs" / "bring-your-own-data.md"
BLOCKS = {
    re.search(r"^name: (\S+)", block, re.MULTILINE)[1]: block  # type: ignore[index]
    for block in re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
}
PARAMS = {
    "harmonize": {"orientation": "LPS", "min_object_area_px": 1},
    "shards": {"target_bytes": 1 << 26},
    "splits": {"key": "k", "val": 0.15, "test": 0.15},
}
NOISE = np.random.default_rng(5)
SHAPE = (40, 56)

# What a maker draws: concept -> pixels (2D) or voxels marked, over all cases; and the number of cases and of groups.
Truth = tuple[dict[str, int], int, int]


def box(y: int, x: int, height: int = 6, width: int = 9) -> NDArray[np.bool_]:
    made = np.zeros(SHAPE, dtype=bool)
    made[y : y + height, x : x + width] = True
    return made


def picture(path: Path, pixels: NDArray[np.uint8] | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(NOISE.integers(0, 255, (*SHAPE, 3), dtype=np.uint8) if pixels is None else pixels).save(path)


def white(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return (mask * 255).astype(np.uint8)


def volume(path: Path, pixels: NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(pixels)
    image.SetSpacing((0.7, 0.8, 3.0))
    sitk.WriteImage(image, str(path))


def scan() -> NDArray[np.int16]:
    return NOISE.integers(-900, 900, (5, *SHAPE)).astype(np.int16)


def organ(value: int = 1, at: int = 4) -> NDArray[np.uint8]:
    made = np.zeros((5, *SHAPE), np.uint8)
    made[1:4, at : at + 10, 5:17] = value  # 360 voxels
    return made


def polyps_paired(root: Path) -> Truth:
    for patient in range(4):
        for frame in range(2):
            mask = box(3, 5) | box(20, 30) if frame else np.zeros(SHAPE, dtype=bool)
            picture(root / "images" / f"p{patient}_{frame}.{'png' if frame else 'jpg'}")
            picture(root / "masks" / f"p{patient}_{frame}.png", white(mask))
    (root / "frames.csv").write_text("frame\n", encoding="utf-8")
    return {"polyp": 4 * 2 * 54}, 8, 4


def retina_layers(root: Path) -> Truth:
    for patient in range(3):
        for number in range(2):
            picture(root / f"eye {patient}" / f"{number}.png")
            picture(
                root / f"eye {patient}" / f"{number}_label.png",
                np.where(box(2, 2), 61, np.where(box(20, 9), 130, 0)).astype(np.uint8),
            )
    return {"retinal fluid": 6 * 54, "drusen": 6 * 54}, 6, 3


def ultrasound_colours(root: Path) -> Truth:
    for number, split in enumerate(("train", "train", "Val", "test")):
        mask = np.zeros((*SHAPE, 3), np.uint8)
        mask[box(4, 4), number % 2] = 245
        picture(root / split / "images" / f"u{number}.png")
        picture(root / split / "masks" / f"u{number}.png", mask)
    return {"benign breast tumor": 2 * 54, "malignant breast tumor": 2 * 54}, 4, 4


def nuclei_numbered(root: Path) -> Truth:
    for name in ("tissue", "ids"):
        (root / name).mkdir(parents=True)
    for number in range(3):
        tifffile.imwrite(root / "tissue" / f"t{number}.tif", NOISE.integers(0, 255, (*SHAPE, 3), dtype=np.uint8))
        tifffile.imwrite(root / "ids" / f"t{number}.tif", (box(3, 3) * 1 + box(9, 3) * 700).astype(np.uint16))
    return {"cell nucleus": 3 * 2 * 54}, 3, 3


def nuclei_files(root: Path) -> Truth:
    for number in range(3):
        picture(root / f"n{number}" / "images" / f"n{number}.png")
        for index in range(2):
            picture(root / f"n{number}" / "masks" / f"{index}abc.png", white(box(3, 3 + 9 * index)))  # they touch
    return {"cell nucleus": 3 * 2 * 54}, 3, 3


def organs_by_file(root: Path) -> Truth:
    for number in range(2):
        volume(root / f"s{number}" / "ct.nii.gz", scan())
        for part, at in (("liver", 2), ("kidney_left", 20), ("table", 28)):
            volume(root / f"s{number}" / "segmentations" / f"{part}.nii.gz", organ(at=at))
    return {"liver": 720, "left kidney": 720}, 2, 2


def bones_polygons(root: Path) -> Truth:
    (root / "annotations").mkdir(parents=True)
    for number in range(2):
        picture(root / "images" / f"b{number}.png")
        shape = {"label": "Tumor", "shape_type": "polygon", "points": [[10, 5], [30, 5], [30, 25], [10, 25]]}
        said = {"shapes": [shape], "imageHeight": SHAPE[0], "imageWidth": SHAPE[1], "imagePath": f"b{number}.png"}
        (root / "annotations" / f"b{number}.json").write_text(json.dumps(said), encoding="utf-8")
    return {"bone tumor": 2 * 400}, 2, 2


def vessels_coco(root: Path) -> Truth:
    for name in ("first", "second"):
        images, drawn = [], []
        for number in range(2):
            picture(root / name / "images" / f"{name}{number}.png")
            images.append({"id": number, "file_name": f"{name}{number}.png", "height": SHAPE[0], "width": SHAPE[1]})
            if number:
                drawn.append({"id": 1, "image_id": number, "category_id": 3, "iscrowd": 0, "area": 200,
                              "bbox": [10, 5, 20, 10], "segmentation": [[10, 5, 30, 5, 30, 15, 10, 15]]})  # fmt: skip
        said = {"images": images, "annotations": drawn, "categories": [{"id": 3, "name": "Stenosis"}]}
        (root / name / "annotations.json").write_text(json.dumps(said), encoding="utf-8")
    return {"coronary stenosis": 2 * 200}, 4, 4


def competition_runs(root: Path) -> Truth:
    """Two rectangles of 9 columns and 6 rows in the first picture, one in the second, none in the third."""
    rows = ["ImageId,EncodedPixels"]
    for number, places in enumerate(([(3, 3), (20, 30)], [(4, 3)], [])):
        picture(root / "train_images" / f"{number}.jpg")
        for y, x in places:
            runs = (f"{column * SHAPE[0] + y + 1} 6" for column in range(x, x + 9))
            rows.append(f"{number},{' '.join(runs)}")
        rows += [] if places else [f"{number},-1"]
    (root / "train.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return {"lesion": 3 * 54}, 3, 3


def two_readers(root: Path) -> Truth:
    for number in range(3):
        picture(root / f"{number}.jpg")
        picture(root / f"{number}_first.png", white(box(3, 3)))
        picture(root / f"{number}_second.png", white(box(4, 3)))
    return {"skin lesion": 3 * 54}, 3, 3


def spleen_decathlon(root: Path) -> Truth:
    for number in range(2):
        volume(root / "imagesTr" / f"spleen_{number}.nii.gz", scan())
        volume(root / "labelsTr" / f"spleen_{number}.nii.gz", organ())
    volume(root / "imagesTs" / "spleen_9.nii.gz", scan())
    (root / "dataset.json").write_text("{}", encoding="utf-8")
    return {"spleen": 720}, 2, 2


def glioma_sequences(root: Path) -> Truth:
    for patient in ("g1", "g2", "g3"):
        for sequence in ("t1", "t1ce", "t2", "flair")[: 4 if patient != "g3" else 1]:
            volume(root / patient / f"{patient}_{sequence}.nii.gz", scan())
        volume(root / patient / f"{patient}_seg.nii.gz", organ(1) + organ(4, at=20))
    return {"necrotic tumor core": 9 * 360, "enhancing tumor": 9 * 360}, 9, 3


def prostate_nnunet(root: Path) -> Truth:
    for number in range(2):
        for channel in range(2):
            volume(root / "imagesTr" / f"case_{number}_000{channel}.nii.gz", scan())
        volume(root / "labelsTr" / f"case_{number}.nii.gz", organ() + organ(2, 25))
    (root / "dataset.json").write_text("{}", encoding="utf-8")
    return {"prostate": 720, "prostate tumor": 720}, 2, 2


def cord_bids(root: Path) -> Truth:
    for subject in range(2):
        for weight in ("T1w", "T2w"):
            name = f"sub-{subject:02d}/anat/sub-{subject:02d}_{weight}"
            volume(root / f"{name}.nii.gz", scan())
            (root / f"{name}.json").write_text("{}", encoding="utf-8")
            volume(root / "derivatives" / "labels" / f"{name}_seg-manual.nii.gz", organ())
    (root / "participants.tsv").write_text("id\n", encoding="utf-8")
    return {"spinal cord": 4 * 360}, 4, 2


def slices_npz(root: Path) -> Truth:
    root.mkdir(parents=True, exist_ok=True)
    for number in range(2):
        np.savez_compressed(root / f"v{number}.npz", imgs=scan(), gts=organ())
    return {"liver": 720}, 2, 2


def patches_npy(root: Path) -> Truth:
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for fold in (1, 2):
        np.save(root / "images" / f"fold{fold}.npy", NOISE.integers(0, 255, (3, *SHAPE, 3), dtype=np.uint8))
        np.save(root / "masks" / f"fold{fold}.npy", np.stack([box(2, 3 * n) for n in range(3)]).astype(np.uint8))
    return {"gland": 6 * 54}, 6, 2


def liver_seg(root: Path) -> Truth:
    paths = series(root / "patient" / "ct", phantom())
    sources = sorted((pydicom.dcmread(path) for path in paths), key=lambda made: int(made.InstanceNumber))
    marks = np.zeros((*phantom().shape, 2), np.uint8)
    marks[2:5, 3:8, 4:10, 0] = 1
    marks[0, 20:, :, 1] = 1
    code = Code("10200004", "SCT", "Liver")
    segments = [
        highdicom.seg.SegmentDescription(number, label, code, code, highdicom.seg.SegmentAlgorithmTypeValues.MANUAL)
        for number, label in ((1, "Liver"), (2, "Table"))
    ]
    made = highdicom.seg.Segmentation(
        sources, marks, highdicom.seg.SegmentationTypeValues.BINARY, segments, "1.2.3.4", 9, "1.2.3.5", 1,
        "made", "made", "1", "1",
    )  # fmt: skip
    (root / "patient" / "seg").mkdir()
    made.save_as(root / "patient" / "seg" / "1.dcm")
    return {"liver": 3 * 5 * 6}, 1, 1


def prostate_rtstruct(root: Path) -> Truth:
    folder = root / "p1" / "study"
    spacing = (2.0, 0.5, 0.7)
    for path in series(folder, phantom(), spacing_zyx=spacing):
        path.rename(path.with_name(f"CT{path.name}"))

    def outline(y0: int, x0: int, y1: int, x1: int, z: int) -> NDArray[np.float64]:
        # the corners of voxels y0..y1, x0..x1: half a voxel outside of their middles
        corners = np.array([[x0 - 0.5, y0 - 0.5], [x1 + 0.5, y0 - 0.5], [x1 + 0.5, y1 + 0.5], [x0 - 0.5, y1 + 0.5]])
        x, y = -10.0 + corners[:, 0] * spacing[2], 20.0 + corners[:, 1] * spacing[1]
        return np.stack([x, y, np.full(4, 5.0 + z * spacing[0])], axis=1)

    regions = {"Prostate": [outline(4, 3, 9, 8, z) for z in (2, 3)], "BODY": [outline(0, 0, 20, 18, 2)]}
    structure_set(folder / "RS1.dcm", regions)
    return {"prostate": 2 * 6 * 6}, 1, 1


MAKERS: dict[str, Callable[[Path], Truth]] = {
    "PolypsPaired": polyps_paired,
    "RetinaLayers": retina_layers,
    "UltrasoundColours": ultrasound_colours,
    "NucleiNumbered": nuclei_numbered,
    "NucleiFiles": nuclei_files,
    "OrgansByFile": organs_by_file,
    "BonesPolygons": bones_polygons,
    "VesselsCoco": vessels_coco,
    "LesionsOfACompetition": competition_runs,
    "TwoReaders": two_readers,
    "SpleenDecathlon": spleen_decathlon,
    "ProstateNnunet": prostate_nnunet,
    "GliomaSequences": glioma_sequences,
    "CordBids": cord_bids,
    "SlicesNpz": slices_npz,
    "PatchesNpy": patches_npy,
    "LiverSeg": liver_seg,
    "ProstateRtstruct": prostate_rtstruct,
}


def test_every_block_of_the_page_has_its_files_here() -> None:
    assert set(BLOCKS) == set(MAKERS)


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_the_card_alone_brings_its_files_in(name: str, tmp_path: Path) -> None:
    root, path = tmp_path / "raw", tmp_path / f"{name}.yaml"
    truth, cases, groups = MAKERS[name](root)
    path.write_text(BLOCKS[name], encoding="utf-8")
    read = read_card(path)
    found = check(read.card, root, written=read.written)
    assert found["ok"], (found["problems"], found["expressions"])
    assert (found["cases_kept"], found["groups"]) == (cases, groups)
    report = _ingested(read.card, root, tmp_path / "data")
    counts = report["counts"]
    assert (counts["cases_kept"], counts["cases_quarantined"], counts["files_quarantined"]) == (cases, 0, 0)
    rows = [row for shard in report["shards"] for row in pq.read_table(tmp_path / "data" / shard).to_pylist()]
    assert _marked(rows) == truth
    assert len({row["group_id"] for row in rows}) == groups
    for row in rows:
        assert not set(row["absent"]) & {item["concept"] for item in row["objects"]}
        assert set(row["absent"]) <= set(read.card.concepts)
    if not read.card.public:
        shown = {row["sample_id"].partition("/")[2] for row in rows} | {row["group_id"] for row in rows}
        shown |= {item["file"] for row in rows for item in row["source"]}
        names = {part.split(".")[0] for file in _files(root) for part in file.split("/")} | {"P1", "Made^Up"}
        assert not [(name, each) for name in names if len(name) > 3 for each in shown if name in each]


def test_objects_are_told_apart_as_the_cards_say(tmp_path: Path) -> None:
    wanted = {"PolypsPaired": 8, "NucleiNumbered": 6, "NucleiFiles": 6, "BonesPolygons": 2, "VesselsCoco": 2}
    wanted["LesionsOfACompetition"] = 3
    for name, objects in wanted.items():
        root, path = tmp_path / name, tmp_path / f"{name}.yaml"
        MAKERS[name](root)
        path.write_text(BLOCKS[name], encoding="utf-8")
        assert sum(check(read_card(path).card, root)["objects"].values()) == objects, name


def test_official_splits_and_agreement_come_out(tmp_path: Path) -> None:
    for name in ("UltrasoundColours", "TwoReaders"):
        MAKERS[name](tmp_path / name)
        (tmp_path / f"{name}.yaml").write_text(BLOCKS[name], encoding="utf-8")
        _ingested(read_card(tmp_path / f"{name}.yaml").card, tmp_path / name, tmp_path / "data" / name)
    splits = pq.read_table(tmp_path / "data" / "UltrasoundColours" / "manifest.parquet").column("split").to_pylist()
    assert sorted(splits) == ["test", "train", "train", "val"]
    agreement = pq.read_table(tmp_path / "data" / "TwoReaders" / "cases.parquet").column("agreement").to_pylist()
    # 6 rows of 9 against the same one row lower: 5 rows in common
    assert [json.loads(each)["second"]["skin lesion"] for each in agreement] == [pytest.approx(2 * 45 / 108)] * 3


def test_the_page_explains_every_reason_of_the_quarantine() -> None:
    page = PAGE.read_text(encoding="utf-8")
    code = "\n".join(path.read_text(encoding="utf-8") for path in (PAGE.parents[1] / "preprocessing").rglob("*.py"))
    reasons = set(re.findall(r'CaseError\(\s*"([a-z_]+)"', code)) | {"not_on_card"}
    assert len(reasons) > 15
    assert {reason for reason in reasons if f"`{reason}`" not in page} == set()


def _files(root: Path) -> Iterable[str]:
    return (path.relative_to(root).as_posix() for path in sorted(root.rglob("*")) if path.is_file())


def _ingested(card: Any, root: Path, out: Path) -> dict[str, Any]:
    listed = [
        {"file": file, "bytes": (root / file).stat().st_size, "sha256": sha256_file(root / file)}
        for file in _files(root)
    ]
    shutil.rmtree(out, ignore_errors=True)
    return build_dataset(card, root, listed, out, PARAMS, pseudonym_key=b"k", case_cache=None, source_kind="folder")


def _marked(rows: list[dict[str, Any]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for row in rows:
        for item in row["objects"]:
            pixels = int(rle.decode(item["rle"], row["height"], row["width"]).sum())
            found[item["concept"]] = found.get(item["concept"], 0) + pixels
    return found
