"""Volumes that claim more than there is are refused from their header: in a moment, and without the memory."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom import uid
from pydicom.dataset import Dataset

from tests.made_dicom import enhanced, rewritten, series, structure_set

# Reads one file as the build would and says what came of it, how long it took, and the most memory ever held.
PROBE = """
import json, re, sys, time
from pathlib import Path
from infra.errors import CaseError
from preprocessing.cards import DatasetCard, Layout, Licence, Segments
from preprocessing.harmonize import volume
from preprocessing.readers.dicom import is_picture, read_picture
card = DatasetCard("b", "B", "CT", Licence("x"), "c", "h", "l", (Layout("(?P<case>x)"),), Segments({}))
path, start = Path(sys.argv[1]), time.process_time()
try:
    if path.suffix not in (".nii", ".gz", ".nrrd", ".mha") and is_picture(path):
        read_picture(path)
    else:
        volume.read([path], card, "LPS")
    said = "read"
except CaseError as error:
    said = error.reason
# not getrusage: its maximum begins with what the process that started this one held
most = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
print(json.dumps({"said": said, "seconds": time.process_time() - start, "bytes": most}))
"""


def nifti(path: Path, *sizes: int) -> Path:
    sitk.WriteImage(sitk.Image(4, 4, 4, sitk.sitkUInt8), str(path))
    content = bytearray(path.read_bytes())
    struct.pack_into(f"<{1 + len(sizes)}h", content, 40, len(sizes), *sizes)
    path.write_bytes(bytes(content))
    return path


def text_header(path: Path, old: bytes, new: bytes) -> Path:
    sitk.WriteImage(sitk.Image(4, 4, 4, sitk.sitkUInt8), str(path))
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))
    return path


def dicom(path: Path, change: Callable[[Dataset], None]) -> Path:
    return rewritten(series(path, np.zeros((1, 8, 8), np.uint16))[0], change)


def frames(made: Dataset) -> None:
    made.NumberOfFrames = 1_000_000


def wide(made: Dataset) -> None:
    made.Rows = made.Columns = 60_000


def codestream(made: Dataset) -> None:
    frame = bytearray(imagecodecs.jpeg2k_encode(np.zeros((8, 8), np.uint16), codecformat="J2K"))
    at = frame.index(b"\xff\x51") + 6
    frame[at : at + 8] = (60_000).to_bytes(4, "big") * 2
    made.PixelData = pydicom.encaps.encapsulate([bytes(frame)])
    made["PixelData"].VR, made["PixelData"].is_undefined_length = "OB", True
    made.file_meta.TransferSyntaxUID = uid.JPEG2000Lossless


def deflated(folder: Path) -> Path:
    """A structure set whose dataset inflates to two gigabytes of zeros."""
    path = structure_set(folder / "rt", {"a": []})
    made = pydicom.dcmread(path)
    made.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    made.save_as(path)
    meta = path.read_bytes()[: 144 + int(pydicom.filereader.read_file_meta_info(path).FileMetaInformationGroupLength)]
    squeeze, parts = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS), []
    for _ in range(256):
        parts.append(squeeze.compress(b"\0" * (8 << 20)))
    path.write_bytes(meta + b"".join(parts) + squeeze.flush())
    return path


BOMBS: dict[str, Callable[[Path], Path]] = {
    "NIfTI of 2**31 voxels": lambda root: nifti(root / "a.nii", 2048, 2048, 512),
    "4D NIfTI": lambda root: nifti(root / "a.nii", 1024, 1024, 1024, 2),
    "NRRD": lambda root: text_header(root / "a.nrrd", b"sizes: 4 4 4", b"sizes: 2048 2048 512"),
    "MetaImage": lambda root: text_header(root / "a.mha", b"DimSize = 4 4 4", b"DimSize = 2048 2048 512"),
    "DICOM of a million frames": lambda root: dicom(root, frames),
    "enhanced DICOM of a million": lambda root: enhanced(root / "mf", np.zeros((2, 8, 8), np.uint16), change=frames),
    "DICOM of 60,000 x 60,000": lambda root: dicom(root, wide),
    "DICOM with a lying codestream": lambda root: dicom(root, codestream),
    "deflated DICOM": deflated,
}  # fmt: skip


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_refused_from_its_header(tmp_path: Path, bomb: str) -> None:
    path = BOMBS[bomb](tmp_path)
    ran = subprocess.run([sys.executable, "-c", PROBE, str(path)], capture_output=True, text=True, check=True)
    said = json.loads(ran.stdout.splitlines()[-1])
    assert said["said"] == "too_large"
    assert said["seconds"] < 1
    assert 20e6 < said["bytes"] < 256e6
