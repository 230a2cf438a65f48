"""Pictures and volumes out of arrays and multi-page files, with the axes that the card's layout says."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageSequence

from infra.errors import CaseError
from preprocessing.cards import ByChannel, LabelRule, Layout
from preprocessing.readers import MAX_VOXELS, arrays, decoding, nifti_family, tiff, too_large
from preprocessing.readers.sniff import format_of, head_of, kind_at, opened


def is_array(path: Path, layout: Layout | None) -> bool:
    """Whether a file is read by its axes: an array, pages that the layout calls a stack or a volume, or a volume
    file (MetaImage, NIfTI) of which the layout says axes without z: a picture."""
    kind = kind_at(path)
    if layout is None:
        return kind == "array"
    if kind == "volume":
        return bool(layout.axes) and "z" not in layout.axes
    return kind == "array" or (kind == "raster" and (layout.stacked or "z" in layout.axes))


def is_volume(path: Path, layout: Layout | None) -> bool:
    """Whether the image array has a z axis, by the card or by its shape. Raises CaseError as `arrays.shape_of`."""
    said = layout or Layout(image="")
    if said.axes:
        return "z" in said.axes
    if kind_at(path) != "array":
        return False
    return "z" in image_axes(_without(said, arrays.shape_of(path, said.image_key)), said)


def stack_length(path: Path, layout: Layout) -> int:
    """How many images a stacked file has. Raises CaseError `unreadable`, `variable`, `dimensions`."""
    if kind_at(path) == "array":
        shape = arrays.shape_of(path, layout.image_key)
        along = _along(layout.axes)
        if along >= len(shape):
            raise CaseError("dimensions", expected=f"an axis {along} of images", found=f"an array of shape {shape}")
        return shape[along]
    if format_of(head_of(path)) == "tiff":
        return tiff.stack_length(path)
    what = "a picture of several frames"
    with decoding(path, what), opened(path) as handle, Image.open(handle) as image:
        return int(getattr(image, "n_frames", 1))


def read_image_array(path: Path, layout: Layout, index: int | None) -> NDArray[Any]:
    """The image as (y, x), (y, x, c), (z, y, x) or (z, y, x, c). Raises CaseError, `dimensions` among others."""
    array = _read(path, layout.image_key, layout.axes, layout, index)
    return _arranged(array, _without_n(layout.axes) or image_axes(array.shape, layout), "the image")


def read_label_array(
    path: Path,
    layout: Layout,
    index: int | None,
    shape: tuple[int, ...],
    rule: LabelRule | None,
    key: str | None = None,
) -> NDArray[Any]:
    """The label of an image of spatial `shape` (y, x) or (z, y, x): the same axes, then channels under `ByChannel`.

    A label stored as a matrix, structures by voxels, as sparse files hold it, gets the image's shape back.
    Raises CaseError `mask_size`, `dimensions` and what the readers raise.
    """
    try:
        array = _read(path, layout.label_key if key is None else key, layout.label_axes, layout, index)
    except CaseError as error:
        if error.reason == "image_missing":
            error.reason = "label_missing"
        raise
    spatial = "zyx"[-len(shape) :]
    with_channels = isinstance(rule, ByChannel)
    axes = _without_n(layout.label_axes) or _label_axes(layout, spatial, with_channels)
    if array.ndim < len(axes) and array.size % math.prod(shape) == 0 and set(spatial) <= set(axes):
        sizes = dict(zip(spatial, shape, strict=True))
        array = array.reshape([sizes.get(axis, array.size // math.prod(shape)) for axis in axes])
    label = _arranged(array, axes, "the label")
    if label.shape[: len(shape)] != shape:
        raise CaseError(
            "mask_size",
            expected=f"{' x '.join(map(str, shape))} ({', '.join(spatial)}), as the image",
            found=" x ".join(map(str, label.shape[: len(shape)])),
            fix="Find the mask that was drawn on this image, or name the axes in the card: label_axes",
        )
    return label


def image_axes(shape: tuple[int, ...], layout: Layout) -> str:
    """What the axes of an image array are, where the card does not say: a last axis of 1, 3 or 4 is colour."""
    if len(shape) == 2:
        return "yx"
    if len(shape) == 3:
        return "yxc" if shape[2] in (1, 3, 4) else "zyx"
    return "zyxc" if len(shape) == 4 else ""


def _label_axes(layout: Layout, spatial: str, with_channels: bool) -> str:
    """The image's axes in the image's order, for the label."""
    said = _without_n(layout.axes).replace("c", "")
    return (said if set(said) == set(spatial) else spatial) + ("c" if with_channels else "")


def _along(axes: str) -> int:
    return axes.index("n") if "n" in axes else 0


def _without_n(axes: str) -> str:
    return axes.replace("n", "")


def _without(layout: Layout, shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without the axis that counts images."""
    along = _along(layout.axes)
    return (*shape[:along], *shape[along + 1 :]) if layout.stacked else shape


def _read(path: Path, key: str, axes: str, layout: Layout, index: int | None) -> NDArray[Any]:
    if layout.stacked and index is None:  # it could not be taken apart: reading its length says why
        stack_length(path, layout)
    if kind_at(path) == "array":
        return arrays.read_array(path, key, index, _along(axes))
    if kind_at(path) == "volume":
        return nifti_family.read_grid(path)
    if format_of(head_of(path)) == "tiff":
        return tiff.read_stack(path, index)
    return _frames(path, index)


def _frames(path: Path, index: int | None) -> NDArray[Any]:
    """The frames of a GIF or another picture of several as greys, or the frame `index` with its colours."""
    what = "a picture of several frames"
    with decoding(path, what), opened(path) as handle, Image.open(handle) as image:
        count = int(getattr(image, "n_frames", 1))
        if index is not None and index >= count:
            raise CaseError("image_missing", expected=f"a frame {index}", found=f"{count} frames")
        voxels = count * image.width * image.height
        if voxels > MAX_VOXELS:
            raise too_large(voxels, MAX_VOXELS, "voxels")
        if index is not None:
            image.seek(index)
            return np.asarray(image.convert("RGB") if image.mode in ("P", "PA") else image)
        return np.stack([np.asarray(frame.convert("L")) for frame in ImageSequence.Iterator(image)])


def _arranged(array: NDArray[Any], axes: str, what: str) -> NDArray[Any]:
    """The array with its axes in the order z, y, x, c; axes of one element that the card does not name are dropped."""
    spare = array.ndim - len(axes)
    while spare > 0 and 1 in array.shape:
        array = array.squeeze(array.shape.index(1))
        spare -= 1
    if array.ndim == len(axes) - 1 and axes.endswith("c"):  # grey stored without its axis
        axes = axes[:-1]
    if array.ndim != len(axes):
        raise CaseError(
            "dimensions",
            expected=f"{what} with axes {', '.join(axes) or 'of 2 to 4 dimensions'}",
            found=f"an array of shape {array.shape}",
            fix="Say its axes in the card: Layout(axes=…, label_axes=…)",
        )
    order = [axes.index(axis) for axis in "zyxc" if axis in axes]
    return np.ascontiguousarray(array.transpose(order))
