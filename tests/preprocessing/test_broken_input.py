"""Broken files end in quarantine with what was expected and found, and never end the run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from infra.errors import CaseError, DataError
from infra.storage import TEMPORARY_SUFFIX, sha256_file
from preprocessing import schema
from preprocessing.build import build_dataset
from preprocessing.cards import Binary, ByValue, DatasetCard, Layout, Licence, RawCase
from preprocessing.harmonize import case as case_module
from preprocessing.harmonize.case import CaseItem, process
from preprocessing.quality import account
from preprocessing.readers import DICOM_SUFFIXES, VOLUME_SUFFIXES
from preprocessing.readers.dicom import read_series

PARAMS: dict[str, Any] = {
    "harmonize": {"orientation": "LPS", "min_object_area_px": 1},
    "shards": {"target_bytes": 1_000_000},
    "splits": {"key": "segfoundry", "val": 0.2, "test": 0.2},
}
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff")
CARD = DatasetCard(
    name="broken",
    title="Broken",
    modality="ct",
    licence=Licence("none"),
    citation="nobody",
    homepage="https://example.org",
    layout_checked="made here",
    layouts=(Layout(image=r"images/(?P<case>[^/]+)\.[^/]+", label=r"masks/(?P<case>[^/]+)\.png"),),
    labels=Binary("polyp"),
    searched=("polyp",),
)


def item(root: Path, images: list[str], labels: list[str], card: DatasetCard = CARD) -> CaseItem:
    case = RawCase("one", "one", tuple(images), tuple(labels))
    return CaseItem(
        card=card,
        case=case,
        root=str(root),
        sha256={file: sha256_file(root / file) for file in case.files},
        orientation="LPS",
        min_object_area_px=1,
        shown_id="one",
        shown_files={file: file for file in case.files},
    )


def series(folder: Path, count: int = 3, change: Callable[[int, Dataset], None] | None = None) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index in range(count):
        slice_ = Dataset()
        slice_.file_meta = FileMetaDataset()
        slice_.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        slice_.file_meta.MediaStorageSOPClassUID = slice_.SOPClassUID = CTImageStorage
        slice_.file_meta.MediaStorageSOPInstanceUID = slice_.SOPInstanceUID = f"1.2.3.{index + 1}"
        slice_.Rows, slice_.Columns, slice_.SamplesPerPixel = 4, 5, 1
        slice_.PhotometricInterpretation = "MONOCHROME2"
        slice_.BitsAllocated, slice_.BitsStored, slice_.HighBit, slice_.PixelRepresentation = 16, 16, 15, 0
        slice_.PixelData = np.full((4, 5), index, dtype=np.uint16).tobytes()
        slice_.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        slice_.ImagePositionPatient = [0, 0, 2 * index]
        slice_.PixelSpacing = [0.5, 0.5]
        if change:
            change(index, slice_)
        paths.append(folder / f"{index}.dcm")
        slice_.save_as(paths[-1], enforce_file_format=True)
    return paths


def without(tag: str, at: int) -> Callable[[int, Dataset], None]:
    return lambda index, slice_: delattr(slice_, tag) if index == at else None


def text(tag: str, at: int, vr: str = "LO", value: str = "wide") -> Callable[[int, Dataset], None]:
    """Put text where a number belongs, as a careless export does."""

    def change(index: int, slice_: Dataset) -> None:
        if index == at:
            slice_[tag] = pydicom.DataElement(tag, vr, value)

    return change


def test_a_sound_series_is_read(tmp_path: Path) -> None:
    read = read_series(series(tmp_path))
    image, uids = read.image, read.uids
    assert (image.GetSize(), image.GetSpacing()) == ((5, 4, 3), (0.5, 0.5, 2.0))
    assert uids == ["1.2.3.1", "1.2.3.2", "1.2.3.3"]


@pytest.mark.parametrize(
    ("change", "at", "reason", "found"),
    [
        (without("ImagePositionPatient", 1), 1, "dimensions", "no position"),
        (without("ImageOrientationPatient", 2), 2, "unreadable", "no ImageOrientationPatient"),
        (without("SOPInstanceUID", 1), 1, "unreadable", "SOPInstanceUID"),
        (without("Rows", 1), 1, "unreadable", "Rows"),
        (without("PixelData", 1), 1, "unreadable", ""),
        (without("PixelSpacing", 0), 0, "unreadable", "no PixelSpacing"),
        (without("ImagePositionPatient", 0), 0, "dimensions", "another kind"),
        (text("PixelSpacing", 0), 0, "unreadable", "could not convert"),
        (text("ImagePositionPatient", 1, value="here"), 1, "unreadable", "could not convert"),
        (text("ImagePositionPatient", 1, "FD", [0.0, float("nan"), 2.0]), 1, "unreadable", "3 finite numbers"),
        (text("ImagePositionPatient", 1, "DS", ["0", "2"]), 1, "unreadable", "3 finite numbers"),
        (text("PixelSpacing", 0, "DS", ["0", "1"]), 0, "spacing", "0.0"),
        (text("ImageOrientationPatient", 1, "DS", ["0", "1", "0", "1", "0", "0"]), 1, "series", "orientation"),
    ],
)
def test_one_bad_slice_refuses_its_series_and_is_named(
    tmp_path: Path, change: Callable[[int, Dataset], None], at: int, reason: str, found: str
) -> None:
    files = [path.relative_to(tmp_path).as_posix() for path in series(tmp_path / "ct", change=change)]
    refusal = process(item(tmp_path, files, files[:1])).refusal
    assert refusal is not None
    assert (refusal["reason"], refusal["file"]) == (reason, files[at])
    assert found in refusal["found"]
    assert refusal["expected"]
    assert str(tmp_path) not in refusal["found"]


def test_a_single_slice_with_a_text_spacing_is_refused(tmp_path: Path) -> None:
    paths = series(tmp_path, 1, text("SpacingBetweenSlices", 0))
    with pytest.raises(CaseError, match=r"unreadable.*could not convert") as caught:
        read_series(paths)
    assert caught.value.file == str(paths[0])


@pytest.mark.parametrize("suffix", [*PICTURE_SUFFIXES, *VOLUME_SUFFIXES, *DICOM_SUFFIXES])
@pytest.mark.parametrize("size", [0, 40, 5000])
def test_random_bytes_are_unreadable_whatever_their_name(tmp_path: Path, suffix: str, size: int) -> None:
    (tmp_path / f"a{suffix}").write_bytes(np.random.default_rng(size).bytes(size))
    (tmp_path / f"b{suffix}").write_bytes(np.random.default_rng(size + 1).bytes(size))
    card = CARD if suffix in PICTURE_SUFFIXES else DatasetCard(**{**vars(CARD), "labels": ByValue({1: "liver"})})
    refusal = process(item(tmp_path, [f"a{suffix}"], [f"b{suffix}"], card)).refusal
    assert refusal is not None
    assert (refusal["reason"], refusal["file"]) == ("unreadable", f"a{suffix}")
    assert refusal["found"]


def test_what_no_guard_caught_still_refuses_one_case_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [path.name for path in series(tmp_path)]

    def confused(*_: Any) -> None:
        msg = f"{tmp_path / paths[0]} has no such thing"
        raise AttributeError(msg)

    monkeypatch.setattr(case_module.geometry, "orient", confused)
    refusal = process(item(tmp_path, paths, paths[:1])).refusal
    assert refusal is not None
    assert (refusal["reason"], refusal["file"]) == ("unreadable", paths[0])
    assert refusal["found"] == f"AttributeError: {paths[0]} has no such thing"


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    from PIL import Image

    root = tmp_path / "raw"
    for index in range(4):
        for part in ("images", "masks"):
            (root / part).mkdir(parents=True, exist_ok=True)
            pixels = np.full((8, 9), 255 * (index % 2), dtype=np.uint8)
            if part == "images":
                pixels[0] = np.arange(9)
            Image.fromarray(pixels).save(root / part / f"{index}.png")
    (root / "images/3.png").write_bytes(b"no picture")
    (root / "stray.bin").write_bytes(b"?")
    return root


def built(root: Path, out: Path, inventory: list[dict[str, Any]] | None = None, **options: Any) -> dict[str, Any]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    listed = inventory or [
        {"file": path.relative_to(root).as_posix(), "bytes": path.stat().st_size, "sha256": sha256_file(path)}
        for path in files
    ]
    options = {"case_cache": None, **options}
    return build_dataset(CARD, root, listed, out, PARAMS, pseudonym_key=b"k", source_kind="mirror", **options)


def test_counts_are_those_of_the_tables(flat: Path, tmp_path: Path) -> None:
    counts = built(flat, tmp_path / "out")["counts"]
    cases = pq.read_table(tmp_path / "out" / schema.CASES_FILE).num_rows
    refused = pq.read_table(tmp_path / "out" / schema.QUARANTINE_FILE).num_rows
    manifest = set(schema.read_manifest(tmp_path / "out").column("case_id").to_pylist())
    assert (cases, len(manifest), refused) == (3, 3, 2)
    assert (counts["cases_found"], counts["cases_kept"], counts["cases_quarantined"]) == (5, 3, 2)
    assert counts["files_found"] == sum(path.is_file() for path in flat.rglob("*")) == 9


def test_counts_that_do_not_add_up_stop_the_build(flat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="broken: expected 3 files as found"):
        account(CARD, ["a", "b", "b"], [])
    double = [RawCase("1", "1", ("images/1.png",), ("masks/1.png",))] * 2
    monkeypatch.setattr("preprocessing.steps.cases.cases_of", lambda card: lambda root: iter(double))
    with pytest.raises(DataError, match=r"broken: expected \d+ cases as found"):
        built(flat, tmp_path / "out")
    assert not (tmp_path / "out" / schema.DATASET_FILE).exists()


def test_folders_of_a_killed_build_are_removed_by_the_next(flat: Path, tmp_path: Path) -> None:
    out, cache = tmp_path / "out", tmp_path / "cache"
    left = [out / f".cases-abc{TEMPORARY_SUFFIX}", cache / CARD.name / f".k.case.1{TEMPORARY_SUFFIX}"]
    seen: list[str] = []

    def watching(function: Callable[[Any], Any], items: list[Any]) -> Any:
        seen.extend(path.name for path in out.iterdir())
        return map(function, items)

    for folder in left:
        folder.mkdir(parents=True)
        (folder / "half.case").write_bytes(b"half")
    built(flat, out, map_cases=watching)
    assert [name.startswith(".cases-") and name.endswith(TEMPORARY_SUFFIX) for name in seen] == [True]
    built(flat, out, case_cache=cache)
    assert not any(folder.exists() for folder in left)
    assert not list(out.glob(".*"))
