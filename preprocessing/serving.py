"""What a served model reads: a picture or a volume as training saw its like, and the way back onto its own grid.

A registered model ships this package as code and reaches it by name (`reader` in its `serving.json`), so that the
readers, the intensity rules and the inverse are the ones that made the training data. `serving.json` also says by
which rules each training dataset was read:
`{"reader", "orientation": "LPS", "datasets": {name: {"modality", "samples", "intensity": {"rule", "limits",
"windows"}, "axes", "spacing_mm_zyx", "frame"}}}`.

Which rule turns intensities into 8 bits is a parameter, `intensity`:

    auto                     pictures of 8 bits as they are; DICOM pictures as the file says; CT by the window, other
                             volumes and deep pictures by the percentiles that most training samples of their kind had
    as_is, voi, ct, mr       8 bits kept; the DICOM file's own display; window -160…240 HU; percentiles 0.5 and 99.5
    window:LOW:HIGH, percentile:LOW:HIGH

CT is what DICOM calls CT, and a volume elsewhere that holds air in Hounsfield units (a value of -500 or less). The
answer says which rule was used. `like` names a training dataset whose rule, spacing, axis and frame are to be used.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.errors import CaseError, UsageError
from infra.storage import read_json
from preprocessing.cards import Intensity
from preprocessing.harmonize import intensity as rules
from preprocessing.readers import is_dicom
from preprocessing.readers.sniff import format_of, kind_at
from preprocessing.scene import Scene

SERVING_FILE = "serving.json"
CT, MR = Intensity("window", (-160.0, 240.0)), Intensity("percentile", (0.5, 99.5))
_AIR_HU = -500.0
_NAMED = {"as_is": Intensity("as_is"), "voi": Intensity("voi"), "ct": CT, "mr": MR}
_ENDINGS = {"nifti": ".nii", "nrrd": ".nrrd", "metaimage": ".mha", "dicom": ".dcm"}
# Objects that lie beside the slices of a series and are no slices.
_NO_IMAGES = {"SEG", "RTSTRUCT", "RTPLAN", "RTDOSE", "SR", "PR", "KO", "REG", "DOC"}
_MOST_UNPACKED_BYTES = 8 << 30


@dataclass(frozen=True)
class Options:
    """How to read: `intensity`, `like` and `axis` ("auto", z, y, x) as the module says; `frame` of 4D, -1 for none."""

    intensity: str = "auto"
    like: str = ""
    axis: str = "auto"
    frame: int = -1


class Reader:
    """Reads what a model is asked about, by the rules of the data it was trained on."""

    def __init__(self, datasets: Mapping[str, Mapping[str, Any]] | None = None, orientation: str = "LPS") -> None:
        self.datasets, self.orientation = dict(datasets or {}), orientation

    @classmethod
    def load(cls, folder: Path) -> Reader:
        """The reader of a model folder; one that knows no dataset where there is no `serving.json`."""
        path = folder / SERVING_FILE
        said = read_json(path) if path.is_file() else {}
        return cls(said.get("datasets"), said.get("orientation") or "LPS")

    def read(self, given: Any, params: Mapping[str, Any] | None = None) -> Scene:
        """Read an array, the bytes of a file, a file, or a folder with one DICOM series.

        An array (height, width[, 3]) of uint8 is a picture; `{"volume": array (z, y, x), "spacing_mm_zyx": …}`, with
        `origin_mm_xyz` and `direction` where known, is a volume. Bytes may also be a ZIP of a DICOM series.
        Raises CaseError for what cannot be read, UsageError for unknown parameters.
        """
        options = self._options(params or {})
        if isinstance(given, np.ndarray):
            return self._picture_of_array(given, options)
        if isinstance(given, Mapping):
            return self._volume_of_array(given, options)
        if isinstance(given, bytes):
            with _as_file(given) as path, _named(path, "the bytes that were sent"):
                return self._file(path, options)
        with _named(Path(given), Path(given).name):
            return self._file(Path(given), options)

    def _file(self, path: Path, options: Options) -> Scene:
        if path.is_dir():
            return self._dicom(_series_in(path), options)
        kind = kind_at(path)
        if kind == "dicom":
            return self._dicom([path], options)
        if kind == "volume":
            from preprocessing.readers.nifti_family import read_volume

            return self._volume(read_volume(path, self._frame(options)), options)
        from preprocessing.readers import raster

        pixels = raster.read_image(path).pixels
        return self._picture(pixels, options, self._rule_of_picture(pixels, options))

    def _dicom(self, paths: list[Path], options: Options) -> Scene:
        from preprocessing.readers import dicom

        if len(paths) == 1 and dicom.is_picture(paths[0]):
            shown = dicom.read_picture(paths[0])
            rule = self._chosen(options) or _NAMED["voi"]
            byte, record = rules.to_8bit(shown.pixels, rule, inverted=shown.inverted, voi=shown.voi)
            return Scene(_solid(byte), "yx", byte.shape[:2], record, files=tuple(paths))
        series = dicom.read_series(paths, self._frame(options))
        is_ct = str(series.header.get("Modality") or "") == "CT"
        return self._volume(
            series.image, options, is_ct=is_ct, inverted=series.inverted, voi=series.voi, files=tuple(paths)
        )

    def _picture_of_array(self, array: NDArray[Any], options: Options) -> Scene:
        if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3):
            raise CaseError(
                "dimensions",
                expected="a uint8 array (height, width) or (height, width, 3)",
                found=f"{array.dtype} {array.shape}",
                file="the array that was sent",
                fix='A volume is {"volume": array (z, y, x), "spacing_mm_zyx": [z, y, x]}',
            )
        return self._picture(array, options, self._chosen(options) or _NAMED["as_is"])

    def _picture(self, pixels: NDArray[Any], options: Options, rule: Intensity) -> Scene:
        byte, record = rules.to_8bit(pixels, rule)
        return Scene(_solid(byte), "yx", byte.shape[:2], record)

    def _volume_of_array(self, given: Mapping[str, Any], options: Options) -> Scene:
        import SimpleITK as sitk

        array = np.asarray(given.get("volume"))
        if array.ndim != 3 or array.dtype.kind not in "iufb" or not array.size:
            raise CaseError(
                "dimensions",
                expected='numbers of shape (z, y, x) as "volume"',
                found=f"{array.dtype} {array.shape}",
                file="the volume that was sent",
            )
        wide = array.astype(np.float32 if array.dtype.itemsize > 2 or array.dtype.kind in "fb" else array.dtype)
        image = sitk.GetImageFromArray(np.ascontiguousarray(wide))
        spacing = given.get("spacing_mm_zyx")
        if spacing is not None:
            image.SetSpacing([float(value) for value in reversed(list(spacing))])
        if given.get("origin_mm_xyz") is not None:
            image.SetOrigin([float(value) for value in given["origin_mm_xyz"]])
        if given.get("direction") is not None:
            image.SetDirection([float(value) for value in np.ravel(given["direction"])])
        if array.dtype == np.uint8 and options.intensity == "auto" and not options.like:
            options = Options("as_is", "", options.axis, options.frame)
        return self._volume(image, options, placed=spacing is not None)

    def _volume(
        self,
        original: Any,
        options: Options,
        *,
        is_ct: bool | None = None,
        inverted: bool = False,
        voi: Any = None,
        files: tuple[Path, ...] = (),
        placed: bool = True,
    ) -> Scene:
        from preprocessing.harmonize import geometry
        from preprocessing.readers.nifti_family import array_of

        like = self.datasets.get(options.like, {})
        harmonized = original
        if placed:
            harmonized = geometry.regrid(geometry.orient(original, self.orientation), like.get("spacing_mm_zyx"))
        values = array_of(harmonized)
        if is_ct is None:
            is_ct = bool(values.dtype.kind in "if" and values.min() <= _AIR_HU)
        rule = self._chosen(options) or self._most_common(is_ct) or (CT if is_ct else MR)
        byte, record = rules.to_8bit(values, rule, inverted=inverted, voi=voi)
        axis = options.axis
        if axis == "auto":
            axis = next(iter(like.get("axes") or ()), "")
            axis = axis or (geometry.slicing_axis(harmonized.GetSpacing()) if placed else "z")
        columns = geometry.grid_columns(original, harmonized)
        row = {"dataset": "served", "case_id": "one", **(columns if placed else geometry.unplaced(columns))}
        shape = tuple(int(size) for size in reversed(original.GetSize()))
        sliced = np.ascontiguousarray(np.moveaxis(byte, "zyx".index(axis), 0))
        return Scene(sliced, "zyx", shape, record, axis, row, files)

    def _options(self, params: Mapping[str, Any]) -> Options:
        options = Options(
            str(params.get("intensity") or "auto"),
            str(params.get("like") or ""),
            str(params.get("axis") or "auto"),
            int(params.get("frame", -1)),
        )
        if options.like and options.like not in self.datasets:
            known = ", ".join(sorted(self.datasets)) or "none is known"
            msg = f"like: expected a dataset that the model was trained on ({known}), found {options.like!r}"
            raise UsageError(msg)
        if options.axis not in ("auto", "z", "y", "x"):
            msg = f"axis: expected auto, z, y or x, found {options.axis!r}"
            raise UsageError(msg)
        return options

    def _frame(self, options: Options) -> int | None:
        """Which of several time points to read: the caller's, else that of the dataset that is named."""
        if options.frame >= 0:
            return options.frame
        like = self.datasets.get(options.like, {}).get("frame")
        return None if like is None else int(like)

    def _chosen(self, options: Options) -> Intensity | None:
        """The rule that the caller asks for by name or by dataset; None for auto."""
        if options.intensity != "auto":
            return intensity_named(options.intensity)
        like = self.datasets.get(options.like, {}).get("intensity")
        return _rule_of(like) if like else None

    def _rule_of_picture(self, pixels: NDArray[Any], options: Options) -> Intensity:
        eight = pixels.dtype in (np.uint8, np.bool_)
        return self._chosen(options) or (_NAMED["as_is"] if eight else MR)

    def _most_common(self, is_ct: bool) -> Intensity | None:
        """The rule that most training samples of volumes of this kind were read by."""
        wanted = "window" if is_ct else "percentile"
        counted: Counter[tuple[Any, ...]] = Counter()
        for said in self.datasets.values():
            rule = said.get("intensity") or {}
            named_ct = "CT" in str(said.get("modality") or "").upper().split()
            if named_ct == is_ct and rule.get("rule") == wanted:
                windows = tuple(tuple(window) for window in rule.get("windows") or ())
                counted[(tuple(rule.get("limits") or ()), windows)] += int(said.get("samples") or 1)
        if not counted:
            return None
        limits, windows = max(counted, key=lambda one: (counted[one], one))
        return _rule_of({"rule": wanted, "limits": limits, "windows": windows})


def intensity_named(text: str) -> Intensity:
    """The rule that a parameter names; UsageError for another text."""
    if text in _NAMED:
        return _NAMED[text]
    rule, *numbers = text.split(":")
    try:
        low, high = (float(number) for number in numbers)
    except ValueError:
        low = high = 0.0
    if rule not in ("window", "percentile") or not low < high or (rule == "percentile" and not 0 <= low < high <= 100):
        msg = (
            f"intensity: expected auto, {', '.join(_NAMED)}, window:LOW:HIGH or percentile:LOW:HIGH with LOW < HIGH, "
            f"found {text!r}"
        )
        raise UsageError(msg)
    return Intensity("window" if rule == "window" else "percentile", (low, high))


def _rule_of(said: Mapping[str, Any]) -> Intensity:
    limits = tuple(float(value) for value in said.get("limits") or (0.5, 99.5))
    windows = tuple((float(low), float(high)) for low, high in said.get("windows") or ())
    return Intensity(said["rule"], (limits[0], limits[1]), windows)


def _solid(byte: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Grey (height, width) as three equal channels, which is what engines take."""
    return np.repeat(byte[:, :, None], 3, axis=2) if byte.ndim == 2 else byte


def _series_in(folder: Path) -> list[Path]:
    """The files of the only image series below a folder; CaseError for none or several."""
    from preprocessing.readers.dicom_file import read_header

    series: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and is_dicom(path):
            header = read_header(path, ["SeriesInstanceUID", "Modality"])
            if str(header.get("Modality") or "") not in _NO_IMAGES:
                series.setdefault(str(header.get("SeriesInstanceUID") or ""), []).append(path)
    if len(series) != 1:
        raise CaseError(
            "series",
            expected="a folder with the slices of one DICOM series",
            found=f"{len(series)} image series in it" if series else "no DICOM image in it",
            file=folder.name,
            fix="Give a folder that holds one series" if series else "",
        )
    return next(iter(series.values()))


@contextmanager
def _as_file(payload: bytes) -> Iterator[Path]:
    """Bytes as a file, or as a folder where they are a ZIP, for the block."""
    head = payload[:2048]
    kind = format_of(head)
    if head[:2] == b"\x1f\x8b":  # only NIfTI and pictures come packed; the readers unpack them by name or content
        import gzip
        import io
        import zlib

        with gzip.open(io.BytesIO(payload)) as inner:
            try:
                kind = format_of(inner.read(2048))
            except (OSError, EOFError, zlib.error):
                kind = "unknown"
    with tempfile.TemporaryDirectory(prefix="segfoundry-") as spare:
        packed = ".gz" if head[:2] == b"\x1f\x8b" else ""
        path = Path(spare) / f"sent{_ENDINGS.get(kind, '')}{packed}"
        path.write_bytes(payload)
        if kind != "zip":
            yield path
            return
        from preprocessing.unpack import unpack

        folder = Path(spare) / "series"
        unpack(path.rename(path.with_name("sent.zip")), folder, "zip", max_bytes=_MOST_UNPACKED_BYTES)
        yield folder


@contextmanager
def _named(path: Path, shown: str) -> Iterator[None]:
    """Refusals say the name that the caller knows, not a path of this machine."""
    try:
        yield
    except CaseError as error:
        inside = Path(error.file).name if error.file and error.file != str(path) else ""
        error.file = f"{shown}/{inside}" if inside and inside != shown else shown
        if "card" in error.fix:
            error.fix = "Say which one: frame, counted from 0"
        raise
