"""A header that names its voxels reads no file outside of its own folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from infra.errors import CaseError
from preprocessing.readers.nifti_family import read_volume

VOXELS = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
META = "ObjectType = Image\nNDims = 3\nDimSize = 4 3 2\nElementType = MET_UCHAR\nElementDataFile = {}\n"
NRRD = "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 4 3 2\nencoding: raw\nspace: left-posterior-superior\n"
NRRD += "space directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (0,0,0)\ndata file: {}\n\n"
HEADERS = pytest.mark.parametrize(("name", "header"), [("a.mhd", META), ("a.mha", META), ("a.nhdr", NRRD)])


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "secret.raw").write_bytes(VOXELS.tobytes())
    return folder / "secret.raw"


@HEADERS
@pytest.mark.parametrize("how", ["absolute", "up", "list", "link"])
def test_voxels_of_another_folder_are_refused(tmp_path: Path, secret: Path, name: str, header: str, how: str) -> None:
    inside = tmp_path / "sent"
    inside.mkdir()
    (inside / "link.raw").symlink_to(secret)
    named = {
        "absolute": str(secret),
        "up": "../elsewhere/secret.raw",
        "list": f"LIST\n{secret}",
        "link": "link.raw",
    }[how]
    (inside / name).write_text(header.format(named))
    with pytest.raises(CaseError, match="another folder") as refused:
        read_volume(inside / name)
    assert str(secret.parent) not in str(refused.value)


@HEADERS
def test_voxels_beside_the_header_are_read(tmp_path: Path, name: str, header: str) -> None:
    (tmp_path / "a.raw").write_bytes(VOXELS.tobytes())
    (tmp_path / name).write_text(header.format("a.raw"))
    assert np.array_equal(sitk.GetArrayFromImage(read_volume(tmp_path / name)), VOXELS)


@pytest.mark.parametrize("ending", [".mha", ".mhd", ".nrrd", ".nhdr"])
def test_what_the_library_itself_writes_is_read(tmp_path: Path, ending: str) -> None:
    image = sitk.GetImageFromArray(VOXELS)
    sitk.WriteImage(image, str(tmp_path / f"v{ending}"), useCompression=ending in (".mha", ".nrrd"))
    assert np.array_equal(sitk.GetArrayFromImage(read_volume(tmp_path / f"v{ending}")), VOXELS)
