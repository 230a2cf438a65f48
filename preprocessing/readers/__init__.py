"""Files to pixels and geometry, through the public decoders; nothing is decoded by code of our own."""

from __future__ import annotations

import csv
import lzma
import re
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from pydicom.errors import InvalidDicomError
from tifffile import TiffFileError

from infra.errors import CaseError

# Above this a header is refused before anything is allocated. Units: pixels of a 2D image, voxels of a volume.
MAX_PIXELS = 400_000_000
MAX_VOXELS = 1_000_000_000
_UNSUSPECTED_BYTES = 64 << 20
_TIGHTEST = 1_100

# What the decoders raise on broken files. They document none of it; a decoder's confusion about a
# broken file is the file's fault, so all of these mean "unreadable" here and nowhere else.
DECODER_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    LookupError,
    AttributeError,
    TypeError,
    RuntimeError,
    ArithmeticError,
    AssertionError,
    struct.error,
    zlib.error,
    tokenize.TokenError,  # numpy parses the header of an NPY as Python
    lzma.LZMAError,
    csv.Error,
    zipfile.BadZipFile,
    InvalidDicomError,
    TiffFileError,
)

VOLUME_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")
DICOM_SUFFIXES = (".dcm", ".seg", ".ima")


def kind_of(file: str | Path) -> str:
    """ "volume", "dicom" or "raster" by a file's name, and where it is there, DICOM by its content too."""
    name = str(file).lower()
    if name.endswith(VOLUME_SUFFIXES):
        return "volume"
    if name.endswith(DICOM_SUFFIXES) or is_dicom(Path(file)):
        return "dicom"
    return "raster"


def is_dicom(path: Path) -> bool:
    """Whether a file carries the mark of DICOM behind its preamble, whatever it is called (PS3.10 section 7.1)."""
    try:
        with path.open("rb") as handle:
            return handle.read(132)[128:] == b"DICM"
    except OSError:
        return False


@contextmanager
def decoding(path: Path, what: str) -> Iterator[None]:
    """Turn whatever a decoder raises into a CaseError that says `unreadable`, or `too_large` for a bomb."""
    try:
        yield
    except Image.DecompressionBombError as error:
        raise CaseError("too_large", expected=f"at most {MAX_PIXELS} pixels", found=str(error)) from error
    except MemoryError as error:  # of a header that slipped through; memory itself is not short
        raise CaseError("too_large", expected=f"{what} that fits into memory", found="more than there is") from error
    except DECODER_ERRORS as error:
        raise unreadable(error, path, what) from error


def unreadable(error: Exception, path: Path, what: str) -> CaseError:
    """The refusal of what a decoder stumbled over, in the decoder's words but without the machine's folders."""
    text = " ".join(str(error).split()).replace(str(path), path.name).replace(str(path.parent) + "/", "")
    text = re.sub(r"\(?0x[0-9a-fA-F]{6,}\)?", "", text)  # an address in memory: another one on every run
    return CaseError(
        "unreadable",
        expected=f"{what} that decodes to the end",
        found=f"{type(error).__name__}: {_end(text)}",
        fix="Fetch the file again, or leave the case out",
    )


def _end(text: str, most: int = 200) -> str:
    """The last part of a text, from the start of a word: half a name would not be known for one."""
    return text if len(text) <= most else text[-most:].partition(" ")[2]


def too_large(count: int, limit: int, unit: str) -> CaseError:
    """The refusal of a header that claims more than the limit."""
    return CaseError("too_large", expected=f"at most {limit} {unit}", found=f"a header that claims {count}")


def judge(claimed_bytes: int, stored_bytes: int) -> None:
    """CaseError `too_large` where a header claims more pixels than so small a file can hold.

    Deflate, the tightest of the usual codecs, packs 1,032 to 1; what is small anyway is left to the decoder.
    """
    if claimed_bytes > _UNSUSPECTED_BYTES and claimed_bytes > _TIGHTEST * max(stored_bytes, 1):
        raise CaseError(
            "too_large",
            expected=f"at most {_TIGHTEST} bytes of pixels for a byte of file",
            found=f"a header that claims {claimed_bytes} bytes of pixels in {stored_bytes} bytes",
        )
