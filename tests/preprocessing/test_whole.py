"""A NIfTI file that ends early is refused; ITK alone would fill it up with zeros."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from infra.errors import CaseError
from preprocessing.readers.nifti_family import read_volume
from preprocessing.readers.whole import check_nifti_whole, unpacked


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float64])
def test_a_whole_file_passes_and_a_shortened_one_does_not(tmp_path: Path, ending: str, kind: type) -> None:
    path = tmp_path / f"volume{ending}"
    voxels = np.random.default_rng(2).integers(0, 100, (5, 9, 7)).astype(kind)
    sitk.WriteImage(sitk.GetImageFromArray(voxels), str(path))
    check_nifti_whole(path)
    content = path.read_bytes()
    for keep in (len(content) - 1, len(content) * 6 // 10, 300, 10, 0):
        path.write_bytes(content[:keep])
        with pytest.raises(CaseError) as caught:
            check_nifti_whole(path)
        assert caught.value.reason == "unreadable"


def test_a_flipped_bit_in_a_compressed_file_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "volume.nii.gz"
    voxels = np.random.default_rng(2).integers(0, 255, (5, 9, 7)).astype(np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(voxels), str(path))
    content = bytearray(path.read_bytes())
    content[-40] ^= 4
    path.write_bytes(bytes(content))
    with pytest.raises(CaseError):
        check_nifti_whole(path)


def test_every_volume_of_the_real_mirror_is_whole(mirror: Path) -> None:
    found = sorted((mirror / "MSD_Hippocampus_udacity").rglob("*.nii.gz"))[:40]
    assert found
    for path in found:
        check_nifti_whole(path)


def _same(left: sitk.Image, right: sitk.Image) -> bool:
    geometry = [(one.GetSize(), one.GetSpacing(), one.GetOrigin(), one.GetDirection()) for one in (left, right)]
    arrays = [sitk.GetArrayFromImage(one) for one in (left, right)]
    return geometry[0] == geometry[1] and arrays[0].dtype == arrays[1].dtype and np.array_equal(*arrays)


def test_what_is_read_unpacked_is_what_itk_reads_packed(mirror: Path) -> None:
    tried = 0
    for path in sorted((mirror / "MSD_Hippocampus_udacity").rglob("*.nii.gz"))[:60] + sorted(
        (mirror / "TotalSegmentator_tests").rglob("*.nii.gz")
    ):
        with unpacked(path) as inside:
            if inside is None:
                continue
            tried += 1
            assert _same(sitk.ReadImage(str(inside)), sitk.ReadImage(str(path))), path
        assert not inside.exists()
    assert tried > 50


def test_a_file_that_is_not_one_sound_member_is_left_to_itk(tmp_path: Path) -> None:
    path = tmp_path / "volume.nii.gz"
    voxels = np.random.default_rng(2).integers(0, 255, (5, 9, 7)).astype(np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(voxels), str(path))
    content = path.read_bytes()
    plain = gzip.decompress(content)
    with unpacked(path) as inside:
        assert inside is not None
        assert inside.read_bytes() == plain
    half = len(plain) // 2
    lies_small = content[:-4] + (400).to_bytes(4, "little")
    flipped = bytes([*content[:-40], content[-40] ^ 4, *content[-39:]])
    for other in (
        gzip.compress(plain[:half]) + gzip.compress(plain[half:]),
        gzip.compress(plain[:-1]),
        content[:-30],
        content[:12],
        lies_small,
        flipped,
        b"",
    ):
        path.write_bytes(other)
        with unpacked(path) as inside:
            assert inside is None
    with unpacked(tmp_path / "nowhere.nii.gz") as inside:
        assert inside is None


def test_a_volume_in_several_gzip_members_is_still_read(tmp_path: Path) -> None:
    path = tmp_path / "volume.nii.gz"
    voxels = np.random.default_rng(2).integers(0, 255, (5, 9, 7)).astype(np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(voxels), str(path))
    plain = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(plain[:500]) + gzip.compress(plain[500:]))
    assert np.array_equal(sitk.GetArrayFromImage(read_volume(path)), voxels)


def test_a_frame_of_an_unpacked_file_is_that_frame_and_the_header_is_judged_as_before(tmp_path: Path) -> None:
    path = tmp_path / "frames.nii.gz"
    voxels = np.random.default_rng(3).integers(0, 255, (3, 5, 9, 7)).astype(np.int16)
    frames = [sitk.GetImageFromArray(frame) for frame in voxels]
    sitk.WriteImage(sitk.JoinSeries(frames), str(path))
    with unpacked(path) as inside:
        assert inside is not None
    for number, frame in enumerate(voxels):
        assert np.array_equal(sitk.GetArrayFromImage(read_volume(path, number)), frame)
    plain = bytearray(gzip.decompress(path.read_bytes()))
    plain[80:84] = np.float32(0).tobytes()  # pixdim[1]: ITK alone would make 1 mm of it
    path.write_bytes(gzip.compress(bytes(plain)))
    with pytest.raises(CaseError) as caught:
        read_volume(path, 0)
    assert caught.value.reason == "spacing"
