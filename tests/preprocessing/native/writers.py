"""Files in the formats of public datasets, written with the libraries that everybody has."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from xml.sax.saxutils import quoteattr

import h5py
import numpy as np
import SimpleITK as sitk
import tifffile
from numpy.typing import NDArray
from PIL import Image
from scipy.io import savemat

Array = NDArray[np.generic]
Masks = Mapping[str, NDArray[np.bool_]]
Writer = Callable[[Path, Masks], None]

SPACING_MM_XYZ = (1.0, 1.0, 2.5)
_VOLUMES = (".nii", ".nii.gz", ".mha", ".mhd", ".nrrd")


def save(path: Path, array: Array, key: str = "") -> None:
    """Write an array as what the path's ending says; volumes are (z, y, x), `key` is the variable of HDF5 or MATLAB."""
    path.parent.mkdir(parents=True, exist_ok=True)
    name = path.name.lower()
    if name.endswith(_VOLUMES):
        image = sitk.GetImageFromArray(array, isVector=False)
        image.SetSpacing((*SPACING_MM_XYZ, 1.0)[: array.ndim])
        sitk.WriteImage(image, str(path))
    elif name.endswith((".h5", ".hdf5")):
        with h5py.File(path, "w") as handle:
            handle[key] = array
    elif name.endswith(".mat"):
        savemat(path, {key: array})
    elif name.endswith(".npy"):
        np.save(path, array)
    elif name.endswith((".tif", ".tiff")):
        tifffile.imwrite(path, array)
    else:
        coded = io.BytesIO()
        kind = {"jpg": "JPEG", "jpeg": "JPEG", "ppm": "PPM"}.get(name.removesuffix(".gz").rsplit(".", 1)[-1], "")
        Image.fromarray(array).save(coded, format=kind or name.rsplit(".", 1)[-1].upper())
        path.write_bytes(gzip.compress(coded.getvalue()) if name.endswith(".gz") else coded.getvalue())


def any_of(masks: Masks) -> NDArray[np.bool_]:
    return np.logical_or.reduce(list(masks.values()))


def binary(value: int = 255, *, rgb: bool = False, key: str = "", dtype: type = np.uint8) -> Writer:
    """Every marked pixel has one value."""

    def write(path: Path, masks: Masks) -> None:
        grey = any_of(masks).astype(dtype) * dtype(value)
        save(path, np.stack([grey] * 3, axis=-1) if rgb else grey, key)

    return write


def outline(path: Path, masks: Masks) -> None:
    """The border of the mask alone, as HC18 has it."""
    from scipy import ndimage

    mask = any_of(masks)
    save(path, (mask & ~ndimage.binary_erosion(mask)).astype(np.uint8) * np.uint8(255))


def one(concept: str, value: int = 255, *, dtype: type = np.uint8, key: str = "") -> Writer:
    """The mask of one concept."""
    return lambda path, masks: save(path, masks[concept].astype(dtype) * dtype(value), key)


def values(
    codes: Mapping[str, int], *, rgba: bool = False, background: int = 0, key: str = "", dtype: type = np.uint8
) -> Writer:
    """A grey value for each concept."""

    def write(path: Path, masks: Masks) -> None:
        label = np.full(any_of(masks).shape, background, dtype)
        for concept, mask in masks.items():
            label[mask] = codes[concept]
        if rgba:
            label = np.stack([label, label, label, np.full_like(label, 255)], axis=-1)
        save(path, label, key)

    return write


def colours(codes: Mapping[str, tuple[int, int, int]]) -> Writer:
    """A colour for each concept on black."""

    def write(path: Path, masks: Masks) -> None:
        label = np.zeros((*any_of(masks).shape, 3), np.uint8)
        for concept, mask in masks.items():
            label[mask] = codes[concept]
        save(path, label)

    return write


def _box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def corners(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """The corners of a mask that is a rectangle, as (x, y)."""
    left, top, right, bottom = _box(mask)
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def labelme(names: Mapping[str, str]) -> Writer:
    """LabelMe JSON with a polygon a concept, labelled by `names`."""

    def write(path: Path, masks: Masks) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        height, width = any_of(masks).shape
        shapes = [
            {"label": names[concept], "shape_type": "polygon", "points": corners(mask)}
            for concept, mask in masks.items()
        ]
        path.write_text(json.dumps({"imageHeight": height, "imageWidth": width, "shapes": shapes}), encoding="utf-8")

    return write


def imagescope(path: Path, masks: Masks) -> None:
    """ImageScope XML with a region a concept and no names, as MoNuSeg has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    regions = []
    for number, mask in enumerate(masks.values(), start=1):
        vertices = "".join(f"<Vertex X={quoteattr(str(x))} Y={quoteattr(str(y))} Z='0'/>" for x, y in corners(mask))
        regions.append(f"<Region Id='{number}' Type='0'><Vertices>{vertices}</Vertices></Region>")
    inner = f"<Annotation Id='1' Name=''><Regions>{''.join(regions)}</Regions></Annotation>"
    path.write_text(f"<?xml version='1.0'?><Annotations>{inner}</Annotations>", encoding="utf-8")


def contour(concept: str) -> Writer:
    """Lines of `x y`, as PAPILA has them."""

    def write(path: Path, masks: Masks) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{x:.4f} {y:.4f}\n" for x, y in corners(masks[concept])), encoding="utf-8")

    return write
