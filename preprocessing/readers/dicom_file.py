"""Open DICOM files through pydicom: quietly, by content, and with claims judged before pixels are allocated.

pydicom warns with the values that it stumbles over, and a value may be a patient's name; so nothing that
it says while it reads reaches a log.
"""

from __future__ import annotations

import logging
import math
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.pixels import apply_color_lut, pixel_array
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from infra.errors import CaseError
from preprocessing.readers import MAX_PIXELS, MAX_VOXELS, decoding, dicom_decoders, too_large

MAX_FRAMES = 100_000
_HEADER_FIRST_BYTES = 32 << 20  # a file of this size is judged by its header before its pixels are read
_INFLATED_BYTES, _INFLATED_RATIO = 64 << 20, 200  # a deflated file may not grow beyond both

pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
logging.getLogger("pydicom").addHandler(logging.NullHandler())
logging.getLogger("pydicom").propagate = False
dicom_decoders.register()


@contextmanager
def quiet() -> Iterator[None]:
    """Keep pydicom's and highdicom's warnings, which quote values, out of standard error and logs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def read_header(path: Path, tags: list[str] | None = None) -> Dataset:
    """A file's header without pixels (only `tags`, where given). Raises CaseError `unreadable`, `too_large`."""
    with decoding(path, "a DICOM header"), quiet():
        _check_inflation(path)
        return _read(path, stop_before_pixels=True, specific_tags=tags)


def read_file(path: Path) -> Dataset:
    """A file with its encoded pixels, which are not decoded here. Raises CaseError `unreadable`, `too_large`."""
    if path.stat().st_size > _HEADER_FIRST_BYTES:
        check_claims(read_header(path))
    with decoding(path, "a DICOM file"), quiet():
        _check_inflation(path)
        dataset = _read(path)
    check_claims(dataset)
    return dataset


def check_claims(header: Dataset) -> None:
    """CaseError `too_large` where a header claims more frames or pixels than anyone would segment."""
    with decoding(Path("header"), "a DICOM header"):
        rows, columns = int(header.get("Rows") or 0), int(header.get("Columns") or 0)
        frames = int(header.get("NumberOfFrames") or 1)
    if rows * columns > MAX_PIXELS:
        raise too_large(rows * columns, MAX_PIXELS, "pixels")
    if frames > MAX_FRAMES:
        raise too_large(frames, MAX_FRAMES, "frames")
    if rows * columns * frames > MAX_VOXELS:
        raise too_large(rows * columns * frames, MAX_VOXELS, "voxels")


def frames_of(dataset: Dataset, path: Path) -> NDArray[Any]:
    """Decoded pixels as stored, without any lookup.

    Grey: (rows, columns) or (frames, rows, columns). Colour: RGB of 8 bits with a last axis of 3, palettes
    resolved. Raises CaseError `unreadable`, `too_large`.
    """
    with decoding(path, "DICOM pixels"), quiet():
        dicom_decoders.check_codestreams(dataset)
        pixels: NDArray[Any] = pixel_array(dataset)
        if dataset.get("PhotometricInterpretation") == "PALETTE COLOR" and "SegmentSequence" not in dataset:
            pixels = apply_color_lut(pixels, dataset)
        if pixels.ndim > 2 and pixels.shape[-1] == 3 and pixels.dtype.itemsize > 1:
            bits = 8 * pixels.dtype.itemsize
            if dataset.get("PhotometricInterpretation") != "PALETTE COLOR":
                bits = int(dataset.get("BitsStored") or bits)
            pixels = (pixels.astype(np.uint32) >> max(0, bits - 8)).astype(np.uint8)
    return pixels


def number(header: Any, tag: str, default: float) -> float:
    """A finite number of a tag; ValueError for text and NaN, the default where the tag is missing or empty."""
    value = header.get(tag)
    if value is None or value == "":
        return default
    found = float(value)
    if not math.isfinite(found):
        msg = f"{tag} is {found}"
        raise ValueError(msg)
    return found


def numbers(header: Any, tag: str, count: int) -> list[float]:
    """`count` finite numbers of a tag; ValueError, which `decoding` turns into a refusal, where it holds another thing.

    NaN is refused here because it passes every comparison that follows.
    """
    value = header.get(tag)
    if value is None:
        msg = f"no {tag}"
        raise ValueError(msg)
    found = [float(part) for part in value]
    if len(found) != count or not all(map(math.isfinite, found)):
        msg = f"{tag} is {found}, not {count} finite numbers"
        raise ValueError(msg)
    return found


@contextmanager
def at_fault(path: Path) -> Iterator[None]:
    """Name the file in a CaseError: of hundreds, the series' first file would send the reader to a sound one."""
    try:
        yield
    except CaseError as error:
        error.file = error.file or str(path)
        raise


def _read(path: Path, **options: Any) -> Dataset:
    try:
        return pydicom.dcmread(path, **options)
    except InvalidDicomError:
        # Old exports lack the preamble. Without one anything parses as something, so ask for what all objects have.
        dataset = pydicom.dcmread(path, force=True, **options)
        wanted = options.get("specific_tags")
        if "SOPClassUID" not in dataset and (wanted is None or "SOPClassUID" in wanted):
            raise
        if "TransferSyntaxUID" not in getattr(dataset, "file_meta", {}):
            implicit = dataset.original_encoding[0]
            dataset.file_meta = getattr(dataset, "file_meta", None) or FileMetaDataset()
            dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
        return dataset


def _check_inflation(path: Path) -> None:
    """CaseError `too_large` for a deflated file that would grow like a bomb; others are not touched."""
    with path.open("rb") as handle:
        head = handle.read(4096)
        if head[128:132] != b"DICM" or DeflatedExplicitVRLittleEndian.encode() not in head:
            return
        meta = read_file_meta_info(path)
        if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
            return
        # group length counts from behind its own element: preamble 128, DICM 4, the element 12
        handle.seek(144 + int(meta.FileMetaInformationGroupLength))
        inflate, grown, read = zlib.decompressobj(-zlib.MAX_WBITS), 0, 0
        while block := inflate.unconsumed_tail or handle.read(1 << 16):
            read += 0 if inflate.unconsumed_tail else len(block)
            grown += len(inflate.decompress(block, 1 << 20))
            if grown > max(_INFLATED_BYTES, _INFLATED_RATIO * max(read, 1)):
                raise CaseError(
                    "too_large",
                    expected=f"a deflated file of at most {_INFLATED_BYTES} bytes or {_INFLATED_RATIO} times its size",
                    found=f"one that grows beyond {grown} bytes",
                )
            if inflate.eof:
                return
