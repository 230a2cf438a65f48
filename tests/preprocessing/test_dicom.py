"""DICOM images come out as the voxels and the place that their headers say, however they are stored."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate

from infra.errors import CaseError
from infra.storage import sha256_file
from preprocessing.cards import ByValue, DatasetCard, Intensity, Layout, Licence, RawCase
from preprocessing.harmonize import geometry
from preprocessing.harmonize.case import CaseItem, process
from preprocessing.harmonize.intensity import to_8bit
from preprocessing.readers import dicom_frames, kind_of
from preprocessing.readers.dicom import is_picture, read_picture, read_series
from preprocessing.readers.dicom_decoders import codestream_size
from preprocessing.readers.nifti_family import array_of
from tests.made_dicom import base, enhanced, phantom, rewritten, series, set_pixels, structure_set

OBLIQUE = (0.8, 0.6, 0.0, -0.36, 0.48, 0.8)


@pytest.mark.parametrize("cosines", [(1, 0, 0, 0, 1, 0), (0, 1, 0, 0, 0, -1), (-1, 0, 0, 0, 0, -1), OBLIQUE])
def test_each_voxel_lies_where_its_slice_says(tmp_path: Path, cosines: tuple[float, ...]) -> None:
    volume = phantom()
    paths = series(tmp_path, volume, cosines=cosines)
    read = read_series(paths)
    assert np.array_equal(array_of(read.image), volume)
    assert read.uids == [f"1.2.826.0.1.3680043.8.498.1.{index + 1}" for index in range(len(volume))]
    normal = np.cross(cosines[:3], cosines[3:])
    for x, y, z in ((0, 0, 0), (17, 4, 7), (3, 20, 8)):
        place = np.array((-10, 20, 5)) + 0.7 * x * np.array(cosines[:3]) + 0.5 * y * np.array(cosines[3:])
        assert np.allclose(read.image.TransformIndexToPhysicalPoint((x, y, z)), place + 2.0 * z * normal, atol=1e-4)
    theirs = sitk.ImageSeriesReader()  # GDCM below it sorts and places slices by rules of its own
    theirs.SetFileNames(theirs.GetGDCMSeriesFileNames(str(tmp_path)))
    other = theirs.Execute()
    assert np.allclose(other.GetDirection(), read.image.GetDirection(), atol=1e-5)
    assert np.allclose(other.GetOrigin(), read.image.GetOrigin(), atol=1e-5)
    assert np.array_equal(sitk.GetArrayFromImage(other), array_of(read.image))


def test_a_file_without_an_ending_is_known_by_its_content(tmp_path: Path) -> None:
    paths = [path.rename(path.with_suffix("")) for path in series(tmp_path, phantom())]
    assert {kind_of(path) for path in paths} == {"dicom"}
    (tmp_path / "IM0").write_bytes(b"\0" * 128 + b"DIC0")
    assert kind_of(tmp_path / "IM0") == "raster"
    assert np.array_equal(array_of(read_series(paths).image), phantom())


def test_slope_and_intercept_are_those_of_each_slice(tmp_path: Path) -> None:
    volume = phantom()

    def change(index: int, made: Dataset) -> None:
        made.RescaleSlope, made.RescaleIntercept = 1 + index, -100 * index

    wanted = [plane * (1.0 + index) - 100 * index for index, plane in enumerate(volume)]
    assert np.array_equal(array_of(read_series(series(tmp_path, volume, change=change)).image), wanted)


def test_a_multi_frame_object_is_the_series_that_it_holds(tmp_path: Path) -> None:
    volume = phantom()
    one = read_series(series(tmp_path / "classic", volume))
    order = np.random.default_rng(3).permutation(len(volume)).tolist()
    many = read_series([enhanced(tmp_path / "enhanced", volume, order=order)])
    assert np.array_equal(array_of(many.image), array_of(one.image))
    assert many.image.GetDirection() == one.image.GetDirection()
    assert np.allclose(many.image.GetOrigin(), one.image.GetOrigin())
    assert many.image.GetSpacing() == one.image.GetSpacing()
    slopes = [0.5 + at for at in range(len(volume))]
    scaled = read_series([enhanced(tmp_path / "slopes", volume, order=order, slopes=slopes)])
    assert np.allclose(array_of(scaled.image), volume * np.array(slopes)[:, None, None])


def test_a_long_compressed_multi_frame_object_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = np.tile(phantom().astype(np.uint16), (12, 1, 1))

    def squeeze(made: Dataset) -> None:
        made.PixelData = encapsulate([imagecodecs.jpegls_encode(plane) for plane in volume], has_bot=False)
        made["PixelData"].VR, made["PixelData"].is_undefined_length = "OB", True
        made.file_meta.TransferSyntaxUID = uid.JPEGLSLossless

    path = enhanced(tmp_path / "long", volume, change=squeeze)
    seen = []
    decode = dicom_frames.frames_of
    monkeypatch.setattr(dicom_frames, "frames_of", lambda *given: seen.append(1) or decode(*given))
    assert np.array_equal(array_of(read_series([path]).image), volume)
    assert len(seen) == 1


def encoded(made: Dataset, syntax: str, code: Callable[[Any], bytes]) -> None:
    """Store the pixels of an object in a compressed transfer syntax."""
    frame = code(made.pixel_array)
    made.PixelData = encapsulate([frame + b"\0" * (len(frame) % 2)])
    made["PixelData"].VR = "OB"
    made["PixelData"].is_undefined_length = True
    made.file_meta.TransferSyntaxUID = uid.UID(syntax)


CODECS: dict[str, tuple[str, Callable[[Any], bytes], int]] = {
    "JPEG lossless": (uid.JPEGLossless, lambda a: imagecodecs.jpeg8_encode(a, lossless=True), 0),
    "JPEG lossless SV1": (uid.JPEGLosslessSV1, lambda a: imagecodecs.jpeg8_encode(a, lossless=True), 0),
    "JPEG 2000": (uid.JPEG2000Lossless, lambda a: imagecodecs.jpeg2k_encode(a, codecformat="J2K", level=0), 0),
    "HTJ2K": (uid.HTJ2KLossless, imagecodecs.htj2k_encode, 0),
    "JPEG-LS": (uid.JPEGLSLossless, imagecodecs.jpegls_encode, 0),
    "JPEG-LS near": (uid.JPEGLSNearLossless, lambda a: imagecodecs.jpegls_encode(a, level=2), 2),
    "JPEG 12 bit": (uid.JPEGExtended12Bit, lambda a: imagecodecs.jpeg8_encode(a, level=98, bitspersample=12), 12),
}


@pytest.mark.parametrize("codec", sorted(CODECS))
def test_compressed_slices_hold_the_same_pixels(tmp_path: Path, codec: str) -> None:
    syntax, code, tolerance = CODECS[codec]
    volume = phantom().astype(np.uint16)

    def change(index: int, made: Dataset) -> None:
        made.BitsStored, made.HighBit = 12, 11
        encoded(made, syntax, code)

    found = array_of(read_series(series(tmp_path, volume, change=change)).image)
    assert np.abs(found - volume).max() <= tolerance
    if tolerance > 2:
        assert np.abs(found - volume).mean() < 2


def test_run_lengths_deflate_and_big_endian(tmp_path: Path) -> None:
    volume = phantom()
    rle = series(tmp_path / "rle", volume, change=lambda _, made: made.compress(uid.RLELossless))
    assert np.array_equal(array_of(read_series(rle).image), volume)
    paths = series(tmp_path / "plain", volume)
    for path in paths:
        made = pydicom.dcmread(path)
        made.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
        made.save_as(path)
    assert np.array_equal(array_of(read_series(paths).image), volume)


def test_jpeg_baseline_in_colour(tmp_path: Path) -> None:
    colour = np.zeros((32, 48, 3), dtype=np.uint8)
    colour[:, 24:, 0], colour[16:, :, 1] = 200, 90
    made = base("1.2.3.4", "1.2.840.10008.5.1.4.1.1.7")
    made.Modality, made.SamplesPerPixel, made.PhotometricInterpretation, made.PlanarConfiguration = "OT", 3, "RGB", 0
    made.Rows, made.Columns = colour.shape[:2]
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 8, 8, 7, 0
    made.PixelData = colour.tobytes()
    encoded(made, uid.JPEGBaseline8Bit, lambda a: imagecodecs.jpeg8_encode(a, level=95))
    made.PhotometricInterpretation = "YBR_FULL_422"
    made.save_as(tmp_path / "photo", enforce_file_format=True)
    assert is_picture(tmp_path / "photo")
    found = read_picture(tmp_path / "photo").pixels
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - colour).mean() < 3


def test_a_codestream_that_claims_more_than_the_header_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    for syntax, frame in (
        (uid.JPEGBaseline8Bit, bytearray(imagecodecs.jpeg8_encode(np.zeros((16, 16), np.uint8)))),
        (uid.JPEG2000Lossless, bytearray(imagecodecs.jpeg2k_encode(np.zeros((16, 16), np.uint8), codecformat="J2K"))),
    ):
        assert codestream_size(bytes(frame)) == (16, 16)
        if syntax == uid.JPEGBaseline8Bit:
            at = frame.index(b"\xff\xc0") + 5
            frame[at : at + 4] = b"\xea\x60\xea\x60"
        else:
            at = frame.index(b"\xff\x51") + 6
            frame[at : at + 8] = (60_000).to_bytes(4, "big") * 2
        path = series(tmp_path / syntax, np.zeros((1, 16, 16), np.uint8))[0]
        claims = bytes(frame)
        rewritten(path, lambda made, s=syntax, f=claims: encoded(made, s, lambda _: f))  # type: ignore[misc]
        with pytest.raises(CaseError, match="too_large"):
            read_series([path])


def tilted(folder: Path, tilt_mm: tuple[float, float]) -> Any:
    """A series of f(world) = 3 x - 2 y + 5 z + 500 with a tilt, which linear interpolation keeps exactly."""
    z, y, x = np.indices((8, 20, 16))
    along, down, up = -10 + 0.75 * x + tilt_mm[0] * z, 20 + 0.5 * y + tilt_mm[1] * z, 5 + 2.0 * z
    field = 3 * along - 2 * down + 5 * up + 500
    stored = np.round(field / 0.0625).astype(np.int16)

    def change(_: int, made: Dataset) -> None:
        made.RescaleSlope, made.RescaleIntercept = 0.0625, 0

    paths = series(folder, stored, spacing_zyx=(2.0, 0.5, 0.75), tilt_mm=tilt_mm, change=change)
    return read_series(paths).image


@pytest.mark.parametrize("tilt_mm", [(0.0, 0.7), (0.5, 0.0), (-0.6, 0.4), (0.0, -1.3)])
def test_a_tilted_gantry_is_straightened_and_the_way_back_is_exact(
    tmp_path: Path, tilt_mm: tuple[float, float]
) -> None:
    original = tilted(tmp_path, tilt_mm)
    straight = geometry.regrid(original)
    assert geometry.shear_of(straight) < 1e-9
    assert np.allclose(straight.GetSpacing(), (0.75, 0.5, 2.0))
    array, seen = array_of(straight), 0
    for z, y, x in np.argwhere(array > array.min()):
        place = straight.TransformIndexToPhysicalPoint((int(x), int(y), int(z)))
        at = original.TransformPhysicalPointToContinuousIndex(place)
        if all(0 <= value <= size - 1 for value, size in zip(at, original.GetSize(), strict=True)):
            assert abs(array[z, y, x] - (3 * place[0] - 2 * place[1] + 5 * place[2] + 500)) < 0.1
            seen += 1
    assert seen > 0.6 * array_of(original).size
    z, y, x = np.indices(original.GetSize()[::-1])
    mask = ((x - 7) / 5) ** 2 + ((y - 9) / 7) ** 2 + ((z - 3.5) / 3) ** 2 <= 1
    mask[0, :2, :3] = True  # touches the corner
    moved = geometry.regrid_mask(mask, original, straight)
    assert abs(int(moved.sum()) - int(mask.sum())) <= 0.02 * mask.sum()
    row = json.loads(json.dumps(geometry.grid_columns(original, straight)))
    assert np.array_equal(geometry.to_original_grid(moved, row), mask)


def test_rounded_positions_are_no_tilt(tmp_path: Path) -> None:
    def change(index: int, made: Dataset) -> None:
        made.ImagePositionPatient = [-10 + 0.004 * (index % 2), 20.0, 5 + 2 * index + 0.003 * (index % 3)]

    image = read_series(series(tmp_path, phantom(), change=change)).image
    assert geometry.shear_of(image) == 0
    assert geometry.regrid(image) is image


def test_slices_beside_the_line_of_the_others_are_refused(tmp_path: Path) -> None:
    def change(index: int, made: Dataset) -> None:
        made.ImagePositionPatient = [-10 + (3 if index == 4 else 0), 20.0, 5 + 2 * index]

    with pytest.raises(CaseError, match=r"series.*beside"):
        read_series(series(tmp_path, phantom(), change=change))


def test_of_several_time_points_the_card_picks_one(tmp_path: Path) -> None:
    first, second = phantom(), phantom()[::-1].copy()
    paths = series(tmp_path / "a", first, change=lambda _, made: setattr(made, "AcquisitionNumber", 1))
    paths += series(tmp_path / "b", second, change=lambda _, made: setattr(made, "AcquisitionNumber", 2))
    with pytest.raises(CaseError, match="duplicate_slice"):
        read_series(paths)
    assert np.array_equal(array_of(read_series(paths, frame=0).image), first)
    assert np.array_equal(array_of(read_series(paths, frame=1).image), second)
    with pytest.raises(CaseError, match="dimensions"):
        read_series(paths, frame=2)


def radiograph(path: Path, **tags: Any) -> Path:
    """A digital X-ray: a bright bone on a dark ground, in MONOCHROME2 unless said otherwise."""
    made = base("1.2.3.9", "1.2.840.10008.5.1.4.1.1.1.1")
    pixels = np.full((40, 30), 300, dtype=np.uint16)
    pixels[:5, 20:] = np.arange(50, dtype=np.uint16).reshape(5, 10) * 20 + 310
    pixels[10:30, 12:18] = 3000
    if tags.get("PhotometricInterpretation") == "MONOCHROME1":
        pixels = 4095 - pixels
    set_pixels(made, pixels)
    made.Modality = "DX"
    for name, value in tags.items():
        setattr(made, name, value)
    made.save_as(path, enforce_file_format=True)
    return path


def shown(path: Path, rule: Intensity) -> tuple[Any, dict[str, Any]]:
    read = read_picture(path)
    return to_8bit(read.pixels, rule, inverted=read.inverted, voi=read.voi)


def test_monochrome1_looks_like_monochrome2(tmp_path: Path) -> None:
    plain, _ = shown(radiograph(tmp_path / "2"), Intensity("percentile", (0.0, 100.0)))
    turned, said = shown(
        radiograph(tmp_path / "1", PhotometricInterpretation="MONOCHROME1"), Intensity("percentile", (0.0, 100.0))
    )
    assert np.array_equal(plain, turned)
    assert turned[20, 15] > turned[0, 0]
    assert said["inverted"] is True
    back = said["low"] + (255 - turned[20, 15].astype(float)) / 255 * (said["high"] - said["low"])
    assert abs(back - 1095) <= (said["high"] - said["low"]) / 255


def test_hounsfield_units_stay_what_they_are_however_they_are_shown(tmp_path: Path) -> None:
    read = read_series(
        series(tmp_path, phantom(), change=lambda _, made: setattr(made, "PhotometricInterpretation", "MONOCHROME1"))
    )
    assert not read.inverted
    assert np.array_equal(array_of(read.image), phantom())


def test_a_window_and_a_lut_of_the_file_are_applied_and_can_be_turned_back(tmp_path: Path) -> None:
    rule = Intensity("voi")
    linear, said = shown(radiograph(tmp_path / "w", WindowCenter=1000.5, WindowWidth=1001), rule)
    # PS3.3 C.11.2.1.2.1: from 500 to 1500, so 300 is black and 3000 white
    assert (linear[0, 0], linear[20, 15], said["kind"]) == (0, 255, "window")
    assert abs(said["inverse"][128] - 1002) < 4
    item = Dataset()
    item.LUTDescriptor = [4096, 0, 12]
    item.LUTData = np.array([int(4095 * (value / 4095) ** 2) for value in range(4096)], dtype="<u2").tobytes()
    curved, said = shown(radiograph(tmp_path / "l", VOILUTSequence=[item]), rule)
    assert curved[20, 15] == round(255 * (3000 / 4095) ** 2)
    assert abs(said["inverse"][int(curved[20, 15])] - 3000) < 20
    theirs = pydicom.pixels.apply_voi_lut(pydicom.dcmread(tmp_path / "l").pixel_array, pydicom.dcmread(tmp_path / "l"))
    assert np.abs(curved - theirs / 4095 * 255).max() <= 0.51
    bent, said = shown(radiograph(tmp_path / "s", WindowCenter=1500, WindowWidth=2000, VOILUTFunction="SIGMOID"), rule)
    assert bent[20, 15] == round(255 / (1 + np.exp(-4 * 1500 / 2000)))
    assert abs(said["inverse"][int(bent[20, 15])] - 3000) < 30
    _, said = shown(radiograph(tmp_path / "n"), rule)
    assert said["rule"] == "percentile"


def test_what_is_no_image_is_called_by_its_name(tmp_path: Path) -> None:
    path = structure_set(tmp_path / "rt.dcm", {"a": [[(0, 0, 0), (1, 0, 0), (0, 1, 0)]]})
    with pytest.raises(CaseError, match=r"image_kind.*RTSTRUCT"):
        read_series([path])


def test_real_multi_frame_is_the_real_series(mirror: Path) -> None:
    home = mirror / "dcmqi/segmentations/24x38x3"
    one = read_series(sorted((home / "image").iterdir()))
    many = read_series([home / "multiframe/mf.dcm"])
    assert np.array_equal(array_of(one.image), array_of(many.image))
    assert one.image.GetOrigin() == many.image.GetOrigin()


def test_the_real_jpeg_2000_series_without_endings(mirror: Path) -> None:
    paths = sorted((mirror / "TotalSegmentator_tests/example_ct_dicom").iterdir())
    read = read_series(paths)
    label = sitk.ReadImage(str(mirror / "TotalSegmentator_tests/example_seg_dicom.nii.gz"))
    assert read.image.GetSize() == label.GetSize() == (512, 512, 20)
    geometry.check_same_grid(geometry.orient(read.image, "LPS"), geometry.orient(label, "LPS"))
    assert -1100 < array_of(read.image).min() < -900


def test_every_quirk_is_read_or_refused_with_a_reason(mirror: Path) -> None:
    found = {}
    for path in sorted((mirror / "quirks_pydicom").iterdir()):
        try:
            if kind_of(path) == "raster":
                found[path.name] = "raster"
            elif is_picture(path):
                found[path.name] = str(read_picture(path).pixels.shape)
            else:
                found[path.name] = str(read_series([path]).image.GetSize())
        except CaseError as error:
            found[path.name] = error.reason
    assert found == {
        "CT_small.dcm": "(128, 128, 1)",
        "MR_small.dcm": "(64, 64, 1)",
        "MR_small_RLE.dcm": "(64, 64, 1)",
        "MR_small_bigendian.dcm": "(64, 64, 1)",
        "MR_small_jp2klossless.dcm": "(64, 64, 1)",
        "MR_truncated.dcm": "unreadable",
        "SC_rgb_rle_16bit_2frame.dcm": "dimensions",
        "SC_ybr_full_422_uncompressed.dcm": "(100, 100, 3)",
        "image_dfl.dcm": "(512, 512)",
        "liver_1frame.dcm": "image_kind",
        "no_meta.dcm": "unreadable",
        "rtstruct.dcm": "image_kind",
        "zipMR.gz": "raster",
    }


@pytest.mark.parametrize("folder", ["quirks_pydicom", "quirks_nibabel", "highdicom", "rt-utils_mock_data"])
def test_no_file_of_the_quirk_folders_ends_in_a_traceback(mirror: Path, folder: str) -> None:
    """Each file as an image with itself as label: kept, or refused with a reason and what was found."""
    made = DatasetCard(
        name=folder, title=folder, modality="CT", licence=Licence("none"), citation="nobody",
        homepage="https://example.org", layout_checked="made here", labels=ByValue({1: "liver"}),
        layouts=(Layout(image="(?P<case>.*)"),), intensity=Intensity("percentile"),
    )  # fmt: skip
    for path in sorted(each for each in (mirror / folder).rglob("*") if each.is_file()):
        file = path.relative_to(mirror / folder).as_posix()
        case = RawCase("one", "one", (file,), (file,))
        result = process(
            CaseItem(
                card=made, case=case, root=str(mirror / folder), sha256={file: sha256_file(path)}, orientation="LPS",
                min_object_area_px=1, shown_id="one", shown_files={file: file},
            )
        )  # fmt: skip
        assert result.rows or (result.refusal and result.refusal["reason"] and result.refusal["found"])
        # what no guard foresaw would say so: there is no such sentence about these files
        assert not result.refusal or result.refusal["expected"] != "a case that decodes to the end", file
