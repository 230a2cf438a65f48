"""Nothing that names a patient is in any byte of a build, in its logs, or in a DICOM object that leaves."""

from __future__ import annotations

import io
import json
import logging
import warnings
import zlib
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pyarrow.parquet as pq
import pydicom
import pytest
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset
from pydicom.uid import UID

from infra.errors import DataError
from infra.storage import sha256_file
from preprocessing import schema
from preprocessing.build import build_dataset
from preprocessing.burned_in import has_writing, look
from preprocessing.cards import Binary, Contours, DatasetCard, Intensity, Layout, Licence, Segments
from preprocessing.check import check
from preprocessing.deid import deidentify, new_uid, scrub
from preprocessing.readers.dicom import find_dicom_cases
from tests.made_dicom import base, phantom, rewritten, series, set_pixels, structure_set
from tests.made_seg import TYPES, masks, segmentation, sorted_sources
from tests.security.planted import COUNT, MARK, UID_MARK, plant

KEY = b"a key outside the repository"
PARAMS: dict[str, Any] = {
    "harmonize": {"orientation": "LPS", "min_object_area_px": 1},
    "shards": {"target_bytes": 1_000_000},
    "splits": {"key": "segfoundry", "val": 0.2, "test": 0.2},
}
CARD = DatasetCard(
    name="hospital",
    title="A hospital's own",
    modality="CT",
    licence=Licence("internal"),
    citation="nobody",
    homepage="https://example.org",
    layout_checked="made here",
    layouts=(
        Layout(image=r"(?P<case>[^/]+)/ct/.*", label=r"(?P<case>[^/]+)/seg\.dcm"),
        Layout(
            image=r"(?P<case>[^/]+)/rt_ct/.*", label=r"(?P<case>[^/]+)/rt\.dcm", labels=Contours({"liver": "liver"})
        ),
        Layout(image=r"(?P<case>[^/]+)/us\.dcm", label=r"(?P<case>[^/]+)/mask\.png", labels=Binary("polyp")),
    ),
    labels=Segments({"part 1": "liver", "part 2": "polyp"}),
    intensity=Intensity("window", (0.0, 255.0)),
    public=False,
)


def scan(folder: Path, change: Any = None) -> list[Path]:
    def planted(index: int, made: Dataset) -> None:
        plant(made)
        made.SeriesInstanceUID = UID(f"{UID_MARK}.{zlib.crc32(folder.parent.name.encode())}")
        made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = UID(f"{UID_MARK}.5.{index}")
        if change:
            change(index, made)

    # every patient's own picture: equal ones would be duplicates
    still = phantom()
    noise = np.random.default_rng(zlib.crc32(folder.parent.name.encode())).integers(0, 200, still.shape)
    paths = series(folder, (still + noise).astype(still.dtype), change=planted)
    # as archives name them: by the instance, the ending a part of it
    return sorted(path.rename(path.with_name(f"CT.{UID_MARK}.5.{k}")) for k, path in enumerate(paths))


def with_seg(home: Path, names: tuple[str, str] = ("Part 1", "Part 2"), change: Any = None) -> None:
    paths = scan(home / "ct")
    made = segmentation(sorted_sources(paths), masks(), TYPES.BINARY, names)
    plant(made, uids=False)
    made.save_as(home / "seg.dcm")
    for path in paths if change else []:
        rewritten(path, change)


def text_spacing(made: Dataset) -> None:
    made["PixelSpacing"] = pydicom.DataElement("PixelSpacing", "LO", [f"{MARK}92Y", "1"])


def short(made: Dataset) -> None:
    made.PixelData = made.PixelData[:-40]


def strange_syntax(made: Dataset) -> None:
    made.file_meta.TransferSyntaxUID = UID(f"{UID_MARK}.66")


def screen(path: Path, said: str = "") -> None:
    """An ultrasound picture with a name in its pixels."""
    path.parent.mkdir(parents=True)
    picture = Image.fromarray(np.full((120, 200), 20, np.uint8))
    ImageDraw.Draw(picture).text((10, 8), f"{MARK} JANE 1970", fill=250, font=ImageFont.load_default(14))
    made = base(f"{UID_MARK}.9", "1.2.840.10008.5.1.4.1.1.6.1")
    set_pixels(made, np.asarray(picture))
    plant(made)
    made.Modality = "US"
    if said:
        made.BurnedInAnnotation = said
    made.save_as(path, enforce_file_format=True)
    mask = np.zeros((120, 200), np.uint8)
    mask[60:90, 60:120] = 255
    Image.fromarray(mask).save(path.parent / "mask.png")


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("raw")
    with_seg(root / f"{MARK}90X_Jane")
    with_seg(root / f"{MARK}91X_Jane")
    with_seg(root / f"{MARK}92X_Jane", change=text_spacing)
    with_seg(root / f"{MARK}93X_Jane", names=("Part 1", f"{MARK}93Y of Jane"))
    with_seg(root / f"{MARK}94X_Jane", change=short)
    with_seg(root / f"{MARK}95X_Jane", change=strange_syntax)
    for number, region in ((96, "Liver"), (97, f"{MARK}97Y")):
        home = root / f"{MARK}{number}X_Jane"
        scan(home / "rt_ct")
        box = [(-5, 25, 9), (-1, 25, 9), (-1, 29, 9), (-5, 29, 9)]
        rewritten(structure_set(home / "rt.dcm", {region: [box]}), lambda made: plant(made, uids=False) and None)
    screen(root / f"{MARK}98X_Jane/us.dcm")
    screen(root / f"{MARK}99X_Jane/us.dcm", said="YES")
    (root / f"{MARK}01X_Jane/ct").mkdir(parents=True)
    (root / f"{MARK}01X_Jane/ct/a.dcm").write_bytes(f"{MARK}01Y is no DICOM".encode() * 20)
    (root / f"{MARK}02X.letter_of_{MARK}").write_text(f"{MARK}02Y")
    return root


def inventory(root: Path) -> list[dict[str, Any]]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return [
        {"file": path.relative_to(root).as_posix(), "bytes": path.stat().st_size, "sha256": sha256_file(path)}
        for path in files
    ]


def build(root: Path, out: Path, listed: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    return build_dataset(
        CARD, root, listed or inventory(root), out, PARAMS, pseudonym_key=KEY,
        case_cache=out.parent / "cache", source_kind="mirror",
    )  # fmt: skip


def everything(folder: Path) -> dict[str, bytes]:
    """Every byte below a folder as it lies there, tables unpacked too."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found[str(path.relative_to(folder))] = path.read_bytes()
            if path.suffix == ".parquet":
                table = pq.read_table(path)
                found[f"{path.name} unpacked"] = repr([table.schema, table.schema.metadata, table.to_pylist()]).encode()
    return found


def canaries(content: bytes) -> set[str]:
    low = content.lower()
    return {mark for mark in (MARK, UID_MARK, "1847031", "Jane") if mark.lower().encode() in low}


def test_sixty_canaries_are_planted() -> None:
    made = base("1.2.3", "1.2.840.10008.5.1.4.1.1.2")
    assert len(plant(made)) >= 60
    assert COUNT >= 60
    buffer = io.BytesIO()
    made.save_as(buffer)
    for word in plant(base("1.2.3", "1.2.840.10008.5.1.4.1.1.2")):
        if word != f"{MARK}89X":  # in the file's own header, which comes with writing it as a file
            assert word.encode() in buffer.getvalue()


def test_no_canary_is_in_any_byte_of_a_build(
    hospital: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with warnings.catch_warnings(record=True) as warned, caplog.at_level(logging.DEBUG):
        warnings.simplefilter("always")
        report = build(hospital, tmp_path / "out")
    said = capfd.readouterr()
    for text in (said.out, said.err, caplog.text, *(str(each.message) for each in warned), json.dumps(report)):
        assert not canaries(text.encode())
    outputs = everything(tmp_path)
    assert {"out/card.html", "out/dataset.json", "out/quarantine.parquet"} <= set(outputs)
    assert any(name.startswith("cache/") for name in outputs)
    for name, content in outputs.items():
        assert not canaries(content), name
        assert not canaries(name.encode())
    quarantine = pq.read_table(tmp_path / "out" / schema.QUARANTINE_FILE).to_pylist()
    assert sorted(row["reason"] for row in quarantine) == sorted(
        ["unreadable", "unreadable", "unreadable", "unknown_label", "unknown_label", "burned_in_text", "label_missing",
         "not_on_card"]
    )  # fmt: skip
    assert report["counts"]["cases_kept"] == 4
    assert all(row["found"] and row["expected"] for row in quarantine)


def test_writing_in_the_pixels_is_flagged_and_never_called_clean(hospital: Path, tmp_path: Path) -> None:
    build(hospital, tmp_path / "out")
    cases = pq.read_table(tmp_path / "out" / schema.CASES_FILE).to_pylist()
    flagged = [json.loads(case["review"]) for case in cases if case["review"]]
    assert flagged == [{"burned_in_text": ["class", "pixels"]}]
    assert "clean" not in json.dumps(cases)


def test_the_same_refusals_say_nothing_to_the_one_who_checks(hospital: Path) -> None:
    said = check(CARD, hospital)
    for row in said["problems"]:
        assert not canaries(row["found"].encode()), row


def test_a_file_that_changed_is_not_named_by_its_patient(hospital: Path, tmp_path: Path) -> None:
    for wrong in ({"sha256": "0" * 64}, {"file": f"{MARK}77X/gone.dcm"}):
        listed = inventory(hospital)
        listed[0] = {**listed[0], **wrong}
        with pytest.raises(DataError) as caught:
            build(hospital, tmp_path / "out", listed)
        assert not canaries(str(caught.value).encode())


def test_series_in_one_folder_are_told_apart_without_their_uids(tmp_path: Path) -> None:
    for number in (1, 2):
        series(
            tmp_path / "all",
            phantom()[:2],
            change=lambda index, made, n=number: setattr(made, "SeriesInstanceUID", f"{UID_MARK}.{n}"),
        )
        for path in (tmp_path / "all").glob("???.dcm"):
            path.rename(path.with_name(f"{number}_{path.name}"))
    card = DatasetCard(**{**vars(CARD), "layouts": (Layout(image="(?P<case>all)/.*", label="(?P<case>no)"),)})
    found = [case.case_id for case in find_dicom_cases(card, tmp_path)]
    assert len(set(found)) == 2
    assert "77001" not in str(found)


def test_a_public_archive_named_by_uids_shows_pseudonyms(tmp_path: Path) -> None:
    home = tmp_path / "raw/one"
    with_seg(home)
    card = DatasetCard(**{**vars(CARD), "public": True})
    build_dataset(
        card, tmp_path / "raw", inventory(tmp_path / "raw"), tmp_path / "out", PARAMS,
        pseudonym_key=KEY, case_cache=None, source_kind="mirror",
    )  # fmt: skip
    for name, content in everything(tmp_path / "out").items():
        assert not canaries(content), name
    source = schema.read_manifest(tmp_path / "out").column("source")[0].as_py()
    assert {each["file"].split("/")[0] for each in source} == {"one"}


def test_an_object_that_leaves_has_no_canary_and_is_still_that_object(tmp_path: Path) -> None:
    made = pydicom.dcmread(series(tmp_path / "ct", phantom()[:1])[0])
    planted = plant(made)
    left = deidentify(made, "hospital", KEY)
    left.save_as(tmp_path / "left.dcm", enforce_file_format=True)
    content = (tmp_path / "left.dcm").read_bytes()
    assert len(planted) >= 60
    assert not canaries(content)
    again = pydicom.dcmread(tmp_path / "left.dcm")
    assert np.array_equal(again.pixel_array, phantom()[0])
    assert not [each for each in again.iterall() if each.tag.is_private]
    assert again.ImagePositionPatient == made.ImagePositionPatient
    assert again.PatientIdentityRemoved == "YES"
    assert again.DeidentificationMethodCodeSequence[0].CodeValue == "113100"
    for empty in ("PatientBirthDate", "StudyDate", "AccessionNumber", "ReferringPhysicianName"):
        assert again[empty].value in ("", None)
    assert again.PatientID == deidentify(made, "hospital", KEY).PatientID
    assert again.PatientID != deidentify(made, "hospital", b"another key").PatientID


def test_a_segmentation_that_leaves_still_belongs_to_its_series(tmp_path: Path) -> None:
    paths = scan(tmp_path / "CANARY/ct")
    made = segmentation(sorted_sources(paths), masks(), TYPES.BINARY)
    plant(made, uids=False)
    left = deidentify(made, "hospital", KEY)
    left.save_as(tmp_path / "seg.dcm", enforce_file_format=True)
    assert not canaries((tmp_path / "seg.dcm").read_bytes())
    seg = highdicom.seg.segread(str(tmp_path / "seg.dcm"))
    uids = [new_uid(str(source.SOPInstanceUID), "hospital", KEY) for source in sorted_sources(paths)]
    assert {str(each[2]) for each in seg.get_source_image_uids()} <= set(uids)
    stack = seg.get_pixels_by_source_instance(source_sop_instance_uids=uids, assert_missing_frames_are_empty=True)
    assert np.array_equal(stack > 0, masks() > 0)


def test_numbers_and_codes_that_are_names_do_not_leave() -> None:
    made = base("1.2.3", "1.2.840.10008.5.1.4.1.1.2")
    made["SliceThickness"] = pydicom.DataElement("SliceThickness", "LO", f"{MARK}41X")
    made["BodyPartExamined"] = pydicom.DataElement("BodyPartExamined", "CS", f"{MARK} of Jane")
    left = deidentify(made, "hospital", KEY)
    assert "SliceThickness" not in left
    assert "BodyPartExamined" not in left


def test_texts_are_scrubbed_of_names_and_uids() -> None:
    text = f"cannot read 'x' of Doe, born 18470312, in {UID_MARK}.3 under 1.2.840.10008.1.2.1 (doeskin stays)"
    assert scrub(text, {"Doe", "18470312"}, closed=False) == (
        "cannot read 'x' of [removed], born [removed], in [removed] under 1.2.840.10008.1.2.1 (doeskin stays)"
    )
    assert "'x'" not in scrub(text, (), closed=True)


@pytest.mark.parametrize("size", [10, 14, 22, 30])
@pytest.mark.parametrize("dark", [False, True])
def test_letters_are_seen_on_any_ground(size: int, dark: bool) -> None:
    rng = np.random.default_rng(size)
    y, x = np.mgrid[:200, :320]
    ground = 90 + 40 * np.sin(x / 37) * np.cos(y / 23) + 6 * rng.standard_normal(x.shape)
    plain = np.clip(ground + 90 * dark, 0, 255).astype(np.uint8)
    assert not has_writing(plain)
    picture = Image.fromarray(plain)
    ImageDraw.Draw(picture).text((20, 90), "DOE JANE 1970", fill=0 if dark else 255, font=ImageFont.load_default(size))
    assert has_writing(np.asarray(picture))
    assert look(None, [np.stack([np.asarray(picture)] * 3, axis=2)]) == ["pixels"]


def test_what_the_file_says_about_writing() -> None:
    header = Dataset()
    plain = np.full((50, 50), 90, np.uint8)
    header.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7.2"
    assert look(header, [plain]) == ["class"]
    header.BurnedInAnnotation = "NO"
    assert look(header, [plain]) == []
    header.SOPClassUID, header.BurnedInAnnotation = "1.2.840.10008.5.1.4.1.1.2", "YES"
    assert look(header, [plain]) == ["tag"]
    header.BurnedInAnnotation = "NO"
    letters = Image.fromarray(plain)
    ImageDraw.Draw(letters).text((2, 10), "DOE J", fill=255, font=ImageFont.load_default(12))
    assert look(header, [np.asarray(letters)]) == ["pixels"]  # what the file denies is looked at all the same
