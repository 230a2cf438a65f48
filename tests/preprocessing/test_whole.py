"""A NIfTI file that ends early is refused; ITK alone would fill it up with zeros."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from infra.errors import CaseError
from preprocessing.readers.whole import check_nifti_whole


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
