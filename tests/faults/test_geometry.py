"""Geometry faults: an asymmetric phantom comes out exact, or its case is quarantined with the reason that is true."""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset

from infra.storage import sha256_file
from preprocessing.cards import ByValue, DatasetCard, Intensity, Layout, Licence, RawCase
from preprocessing.harmonize import geometry
from preprocessing.harmonize.case import CaseItem, CaseResult, process
from preprocessing.harmonize.payload import decode
from preprocessing.readers.dicom import read_series
from preprocessing.readers.nifti_family import read_volume
from preprocessing.schema import rle
from tests.made_dicom import enhanced, series

SPACING = (0.7, 0.5, 2.0)  # x, y, z
ORIGIN = (-10.0, 20.0, 5.0)
CARD = DatasetCard(
    name="faulty",
    title="Faulty",
    modality="CT",
    licence=Licence("none"),
    citation="nobody",
    homepage="https://example.org",
    layout_checked="made here",
    layouts=(Layout(image="(?P<case>i).*", label="(?P<case>l).*"),),
    labels=ByValue({1: "left", 2: "upper"}),
    intensity=Intensity("window", (0.0, 255.0)),  # a value is its byte
)


def truth() -> tuple[np.ndarray, np.ndarray]:
    """Values (z, y, x) in LPS, a different one at every corner, and a label that no mirroring maps onto itself."""
    z, y, x = np.indices((9, 24, 20))
    values = (3 * x + 4 * y + 10 * z).astype(np.int16)
    label = np.zeros(values.shape, dtype=np.uint8)
    label[1:5, 3:11, 12:19] = 1  # on the left: x grows to the left in LPS
    label[7, 15:23, 2:4] = 2
    label[1, 3, 4] = 1
    return values, label


def placed(array: np.ndarray, code: str = "LPS", turn_deg: float = 0.0) -> sitk.Image:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(SPACING)
    image.SetOrigin(ORIGIN)
    turn = np.deg2rad(turn_deg)
    image.SetDirection([np.cos(turn), -np.sin(turn), 0, np.sin(turn), np.cos(turn), 0, 0, 0, 1])
    return geometry.orient(image, code)


def run(root: Path, card: DatasetCard, images: list[str], label: str) -> CaseResult:
    case = RawCase("one", "one", tuple(images), (label,))
    return process(
        CaseItem(
            card=card,
            case=case,
            root=str(root),
            sha256={file: sha256_file(root / file) for file in case.files},
            orientation="LPS",
            min_object_area_px=1,
            shown_id="one",
            shown_files={file: file for file in case.files},
        )
    )


def write(root: Path, name: str, image: sitk.Image) -> str:
    sitk.WriteImage(image, str(root / name))
    return name


def header(path: Path, change: Callable[[bytearray], None]) -> None:
    content = bytearray(path.read_bytes())
    change(content)
    path.write_bytes(bytes(content))


def pack(layout: str, at: int, *values: float) -> Callable[[bytearray], None]:
    return lambda content: struct.pack_into(layout, content, at, *values)


def codes(qform: int, sform: int) -> Callable[[bytearray], None]:
    return pack("<2h", 252, qform, sform)


def volumes(
    image_name: str = "i.nii",
    label_name: str = "l.nii",
    *,
    code: str = "LPS",
    label_code: str = "LPS",
    turn_deg: float = 0.0,
    changes: tuple[Callable[[bytearray], None], ...] = (),
    both: bool = False,
) -> Callable[[Path], CaseResult]:
    """A pair of volume files, the image's header changed (with `both`, the label's too)."""

    def make(root: Path) -> CaseResult:
        values, label = truth()
        image = write(root, image_name, placed(values, code, turn_deg))
        mask = write(root, label_name, placed(label, label_code, turn_deg))
        for change in changes:
            header(root / image, change)
            if both:
                header(root / mask, change)
        return run(root, CARD, [image], mask)

    return make


def scan(
    change: Callable[[int, Dataset], None] | None = None, drop: int | None = None, turned: bool = False, **options: Any
) -> Callable[[Path], CaseResult]:
    """A DICOM series with its label as NIfTI."""

    def make(root: Path) -> CaseResult:
        values, label = truth()
        stored = values[::-1].copy() if turned else values
        if "stored" in options:
            stored = options["stored"](values)
        paths = series(root / "ct", stored, change=change)
        if drop is not None:
            paths = [path for path in paths if path.name != f"{(drop * 7 + 3) % 101:03d}.dcm"]
        mask = write(root, "l.nii.gz", placed(label))
        return run(root, options.get("card", CARD), [f"ct/{path.name}" for path in paths], mask)

    return make


def at(tag: str, value: Callable[[int], Any]) -> Callable[[int, Dataset], None]:
    return lambda index, made: setattr(made, tag, value(index))


def backwards(index: int, made: Dataset) -> None:
    """Slices numbered from head to feet: the place counts, not the number."""
    made.InstanceNumber = 100 - index
    made.ImagePositionPatient = [*ORIGIN[:2], ORIGIN[2] + 2.0 * (8 - index)]


def scaled(index: int, made: Dataset) -> None:
    made.RescaleSlope, made.RescaleIntercept = 0.25 * (index + 1), -index


def unscaled(values: np.ndarray) -> np.ndarray:
    """Stored values that `scaled` turns back to the truth, where they are whole."""
    steps = 0.25 * (np.arange(9) + 1)[:, None, None]
    return np.round((values + np.arange(9)[:, None, None]) / steps).astype(np.int16)


def four(frame: int | None) -> Callable[[Path], CaseResult]:
    def make(root: Path) -> CaseResult:
        values, label = truth()
        frames = sitk.JoinSeries([placed(np.zeros_like(values)), placed(values), placed(values // 2)])
        image = write(root, "i.nii.gz", frames)
        return run(root, replace(CARD, frame=frame), [image], write(root, "l.nii.gz", placed(label)))

    return make


def multi_frame(root: Path) -> CaseResult:
    values, label = truth()
    enhanced(root / "mf", values, order=[4, 2, 0, 1, 3, 8, 7, 6, 5], origin=ORIGIN)
    return run(root, CARD, ["mf"], write(root, "l.nii.gz", placed(label)))


def other_grid(root: Path) -> CaseResult:
    values, label = truth()
    mask = placed(label)
    mask.SetOrigin((ORIGIN[0] + 0.35, *ORIGIN[1:]))
    return run(root, CARD, [write(root, "i.nii", placed(values))], write(root, "l.nii", mask))


def sheared_mha(root: Path) -> CaseResult:
    values, label = truth()
    image = write(root, "i.mha", placed(values))
    text = (root / image).read_bytes()
    assert b"TransformMatrix = 1 0 0 0 1 0 0 0 1" in text
    (root / image).write_bytes(text.replace(b"= 1 0 0 0 1 0 0 0 1", b"= 1 0 0 0.3 0.9539392 0 0 0 1"))
    return run(root, CARD, [image], write(root, "l.mha", placed(label)))


def spacing_text(old: bytes, new: bytes, name: str) -> Callable[[Path], CaseResult]:
    def make(root: Path) -> CaseResult:
        values, label = truth()
        image = write(root, name, placed(values))
        text = (root / image).read_bytes()
        assert old in text
        (root / image).write_bytes(text.replace(old, new, 1))
        return run(root, CARD, [image], write(root, "l.nii", placed(label)))

    return make


NAN = float("nan")
MIRRORED_SFORM = pack("<12f", 280, 0.7, 0, 0, -9.3, 0, -0.5, 0, -20, 0, 0, 2, 5)
SHEARED_SFORM = pack("<12f", 280, -0.7, 0.1, 0, 10, 0, -0.5, 0, -20, 0, 0, 2, 5)
SCALED_SFORM = pack("<12f", 280, -0.8, 0, 0, 10, 0, -0.5, 0, -20, 0, 0, 2, 5)
FAULTS: dict[str, tuple[Callable[[Path], CaseResult], str]] = {
    # what is stored in another way comes out exact
    "NIfTI in RAS": (volumes(code="RAS", label_code="RAS"), "exact"),
    "NIfTI in AIL, gz": (volumes("i.nii.gz", "l.nii.gz", code="AIL", label_code="AIL"), "exact"),
    "NRRD in LPS": (volumes("i.nrrd", "l.nrrd"), "exact"),
    "NRRD image and NIfTI label": (volumes("i.nrrd", "l.nii.gz", code="SAL", label_code="RPI"), "exact"),
    "oblique": (volumes(turn_deg=23.0, code="PIR"), "exact"),
    "mask with flipped axes": (volumes(label_code="RAI"), "exact"),
    "qform alone": (volumes(changes=(codes(1, 0),)), "exact"),
    "sform alone": (volumes(changes=(codes(0, 2), pack("<3f", 256, 0, 0, 0))), "exact"),
    "neither form": (volumes(changes=(codes(0, 0),), both=True), "exact"),
    "DICOM": (scan(), "exact"),
    "DICOM from head to feet": (scan(backwards, turned=True), "exact"),
    "multi-frame DICOM": (multi_frame, "exact"),
    "slope and intercept": (scan(scaled, stored=unscaled), "near"),
    "MONOCHROME1 in HU": (scan(at("PhotometricInterpretation", lambda _: "MONOCHROME1")), "exact"),
    "4D, the card's frame": (four(1), "exact"),
    # what contradicts itself is refused
    "sform is not qform": (volumes(changes=(MIRRORED_SFORM,)), "affine_conflict"),
    "sform with other scales": (volumes(changes=(codes(0, 1), SCALED_SFORM)), "affine_conflict"),
    "sform of NaN": (volumes(changes=(codes(0, 1), pack("<f", 280, NAN))), "affine_conflict"),
    "sheared sform": (volumes(changes=(codes(0, 1), SHEARED_SFORM)), "shear"),
    "sheared MetaImage": (sheared_mha, "shear"),
    "spacing of zero": (volumes(changes=(pack("<f", 84, 0.0),)), "spacing"),
    "spacing of NaN": (volumes(changes=(pack("<f", 88, NAN),)), "spacing"),
    "negative spacing": (volumes(changes=(pack("<f", 80, -0.7),)), "spacing"),
    "MetaImage spacing of zero": (spacing_text(b"0.69999999999999996", b"0", "i.mha"), "spacing"),
    "NRRD spacing of zero": (spacing_text(b"(0.69999999999999996,0,0)", b"(0,0,0)", "i.nrrd"), "spacing"),
    "DICOM spacing of zero": (scan(at("PixelSpacing", lambda _: [0, 0.7])), "spacing"),
    "missing slice": (scan(drop=4), "missing_slice"),
    "duplicate slice": (scan(at("ImagePositionPatient", lambda k: [-10, 20, 5 + 2 * min(k, 7)])), "duplicate_slice"),
    "two orientations": (
        scan(at("ImageOrientationPatient", lambda k: [1, 0, 0, 0, 1, 0] if k else [0, 1, 0, 1, 0, 0])),
        "series",
    ),
    "rows and columns askew": (scan(at("ImageOrientationPatient", lambda _: [1, 0, 0, 0.3, 0.95, 0])), "shear"),
    "4D, no frame named": (four(None), "dimensions"),
    "4D, a frame too many": (four(3), "dimensions"),
    "mask half a voxel beside": (other_grid, "mask_grid"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_exact_or_refused(tmp_path: Path, fault: str) -> None:
    make, expected = FAULTS[fault]
    result = make(tmp_path)
    if expected not in ("exact", "near"):
        assert result.refusal is not None, "nothing was refused"
        assert (result.refusal["reason"], bool(result.refusal["found"])) == (expected, True)
        assert not result.rows
        return
    assert result.refusal is None, result.refusal
    values, label = truth()
    found = np.stack([decode(row["image"]) for row in result.rows])
    if expected == "exact":
        assert np.array_equal(found, np.clip(values, 0, 255))
    else:
        assert np.abs(found.astype(int) - np.clip(values, 0, 255)).max() <= 2  # stored in steps of up to 2.25
    masks = np.zeros(label.shape, dtype=np.uint8)
    for z, row in enumerate(result.rows):
        for item in row["objects"]:
            masks[z][rle.decode(item["rle"], row["height"], row["width"])] = {"left": 1, "upper": 2}[item["concept"]]
    assert np.array_equal(masks, label)
    assert json.loads(result.columns["source_voxels"]) == {
        "left": int((label == 1).sum()),
        "upper": int((label == 2).sum()),
    }


def test_a_tilted_scan_keeps_its_volume_and_finds_its_way_back(tmp_path: Path) -> None:
    """Slices that slide by 0.8 mm each; the label is drawn on them as a DICOM-SEG would be, voxel by voxel."""
    values, label = truth()
    z, y, x = np.indices(label.shape)
    ball = ((x - 9) * 0.7) ** 2 + ((y - 12) * 0.5) ** 2 + ((z - 4) * 2.0) ** 2 <= 5.0**2
    original = read_series(series(tmp_path, values, tilt_mm=(0.0, 0.8))).image
    straight = geometry.regrid(original)
    moved = geometry.regrid_mask(ball, original, straight)
    mm3 = np.prod(straight.GetSpacing())
    assert abs(moved.sum() * mm3 - ball.sum() * 0.7) / (ball.sum() * 0.7) <= 0.02
    row = json.loads(json.dumps(geometry.grid_columns(original, straight)))
    assert np.array_equal(geometry.to_original_grid(moved, row), ball)


def test_monochrome1_without_a_unit_is_turned(tmp_path: Path) -> None:
    values, label = truth()

    def change(_: int, made: Dataset) -> None:
        made.PhotometricInterpretation, made.Modality = "MONOCHROME1", "MR"

    paths = series(tmp_path / "mr", (600 - values).astype(np.int16), change=change)
    mask = write(tmp_path, "l.nii.gz", placed(label))
    card = replace(CARD, intensity=Intensity("percentile", (0.0, 100.0)))
    result = run(tmp_path, card, [f"mr/{path.name}" for path in paths], mask)
    assert result.refusal is None
    found = np.stack([decode(row["image"]) for row in result.rows]).astype(int)
    assert np.corrcoef(found.ravel(), values.ravel())[0, 1] > 0.999
    assert json.loads(result.columns["intensity"])["inverted"] is True


def test_metres_and_micrometres_are_read_as_millimetres(tmp_path: Path) -> None:
    values, _ = truth()
    for unit, share in ((1, 1000.0), (3, 0.001)):
        path = tmp_path / f"{unit}.nii.gz"
        sitk.WriteImage(placed(values), str(path))
        content = bytearray(gzip.decompress(path.read_bytes()))
        content[123] = unit | 8
        path.write_bytes(gzip.compress(bytes(content)))
        assert read_volume(path).GetSpacing() == pytest.approx([value * share for value in SPACING], rel=1e-5)
