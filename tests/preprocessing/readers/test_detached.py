"""A header that names its voxels reads no file outside of its own folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from infra.errors import CaseError
from preprocessing.readers.nifti_family import read_volume
from preprocessing.serving import Reader

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


META_PLAIN = META.replace("ElementDataFile = {}\n", "")
NRRD_PLAIN = NRRD.replace("data file: {}\n\n", "")


@pytest.mark.parametrize("sent", ["file", "bytes"])
@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("a.mha", META_PLAIN + "ElementDataFile : {}\n"),
        ("a.mha", META_PLAIN + "ElementDataFile: {}\n"),
        ("a.mha", META_PLAIN + "elementdatafile = LOCAL\nElementDataFile = {}\n"),
        ("a.mha", META_PLAIN + "Comment =\nElementDataFile = LOCAL\nElementDataFile = {}\n"),
        ("a.mha", META_PLAIN + "ElementDataFile = LOCAL\n" + " " * 100 + "\nElementDataFile = {}\n"),
        ("a.mha", META_PLAIN + "ElementDataFile\n= {}\n"),
        ("a.mha", META_PLAIN + "ElementDataFile =\n{}\n"),
        ("a.mha", META_PLAIN + "ElementDataFile = LISTX\n{0}\n{0}\n"),
        ("a.mha", META_PLAIN + "ElementDataFile = LIST\t3\n{}\n"),
        ("a.mha", META_PLAIN + "ElementDataFile = LIST\n\n{0}\n{0}\n"),
        ("a.mha", META_PLAIN + "Comment = x\n" * 100_000 + "ElementDataFile = {}\n"),
        ("a.mha", "NRRD = 1\n\n" + META_PLAIN + "ElementDataFile = {}\n"),
        ("a.mhd", META_PLAIN + "ElementDataFile = {} 1 1 1 %d\n"),
        ("a.nrrd", NRRD_PLAIN + "data file: LIST\t3\n{}\n"),
        ("a.nrrd", NRRD_PLAIN + "data file: LIST\n\n{0}\n{0}\n"),
        ("a.nrrd", NRRD_PLAIN + "Data File : {}\n\n"),
        ("a.nrrd", NRRD_PLAIN + "datafile: {}\r\n\r\n"),
        ("a.nrrd", NRRD_PLAIN + "# comment\rdata file: {}\n\n"),
        ("a.nrrd", NRRD_PLAIN + "# comment\r\r\ndata file: {}\n\n"),
        ("a.nrrd", NRRD_PLAIN + "# comment\r\rdata file: {}\n\n"),
        ("a.nrrd", NRRD_PLAIN + " \ndata file: {}\n\n"),
        ("a.nrrd", NRRD_PLAIN + "# a comment\n" * 100_000 + "data file: {}\n\n"),
        ("a.nhdr", NRRD_PLAIN + "data file: a.raw\ndata file: {}\n\n"),
    ],
)
def test_no_other_way_of_writing_it_reads_another_folder(
    tmp_path: Path, secret: Path, name: str, header: str, sent: str
) -> None:
    inside = tmp_path / "sent"
    inside.mkdir()
    (inside / name).write_bytes(header.format(secret).encode())
    with pytest.raises(CaseError) as refused:
        read_volume(inside / name) if sent == "file" else Reader().read((inside / name).read_bytes())
    assert str(secret.parent) not in str(refused.value)


@pytest.mark.parametrize("value", ["%s%s%s%n 1 2 1", "a%03d%s.raw 1 2 1", "a%999d.raw 1 2 1", "a\0.raw", "a" * 400])
def test_what_a_c_library_could_stumble_over_never_reaches_it(tmp_path: Path, value: str) -> None:
    (tmp_path / "a.mhd").write_text(META.format(value))
    with pytest.raises(CaseError, match="unreadable"):
        read_volume(tmp_path / "a.mhd")


def test_slices_that_a_pattern_names_are_read_and_links_among_them_are_not(tmp_path: Path, secret: Path) -> None:
    inside = tmp_path / "sent"
    inside.mkdir()
    for number in (1, 2):
        (inside / f"s{number:02}.raw").write_bytes(VOXELS[number - 1].tobytes())
    (inside / "a.mhd").write_text(META.format("s%02d.raw 1 2 1"))
    assert np.array_equal(sitk.GetArrayFromImage(read_volume(inside / "a.mhd")), VOXELS)
    (inside / "s02.raw").unlink()
    (inside / "s02.raw").symlink_to(secret)
    with pytest.raises(CaseError, match="another folder"):
        read_volume(inside / "a.mhd")


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
