"""Arrays: NPY and NPZ (dense, SciPy sparse, pydata sparse), HDF5, MAT version 5 and 7.3.

Through numpy, h5py and scipy.io; what a file is, the content says. Pickled objects are never loaded, and
links from an HDF5 file to other files are never followed. A header is judged before anything is allocated.
MAT 7.3 arrays come with their axes in MATLAB's order, as those of version 5 do.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.errors import CaseError
from preprocessing.readers import MAX_VOXELS, decoding, judge, too_large
from preprocessing.readers.mat5 import check_mat5
from preprocessing.readers.npz_stream import read_plane
from preprocessing.readers.sniff import format_of, head_of

_SCIPY_SPARSE = {"csr", "csc", "bsr", "coo", "dia"}


def read_array(path: Path, key: str = "", index: int | None = None, along: int = 0) -> NDArray[Any]:
    """The array `key` of a file, or its plane `index` along axis `along` without that axis.

    `key` may be empty where the file has one array. Raises CaseError `unreadable`, `too_large`,
    `variable` (no such array, or several and none named), `image_missing` (no such plane).
    """
    with decoding(path, "an array"):
        match format_of(head_of(path)):
            case "npy":
                return _plane(_npy(path), index, along)
            case "zip":
                if index is not None and along == 0 and (found := _streamed(path, key, index)) is not None:
                    return found
                return _plane(_npz(path, key), index, along)
            case "hdf5":
                return _hdf5(path, key, index, along)
            case "mat5":
                if index is None:
                    return _mat(path, key)
                stat = path.stat()
                return _plane(_held_mat(path, key, stat.st_size, stat.st_mtime_ns, stat.st_ino), index, along)
    raise CaseError("unreadable", expected="an NPY, NPZ, HDF5 or MAT file", found="a file of another kind")


def shape_of(path: Path, key: str = "") -> tuple[int, ...]:
    """The shape of the array `key`, from headers alone where the format allows it. Raises as `read_array`."""
    with decoding(path, "an array"):
        match format_of(head_of(path)):
            case "npy":
                return tuple(int(size) for size in _npy(path).shape)
            case "zip":
                with zipfile.ZipFile(path) as archive:
                    members = _members(archive)
                    if _sparse_kind(members):
                        return tuple(int(size) for size in _npz(path, key).shape)
                    return _header(archive, members[_chosen(key, list(members))])[0]
            case "hdf5":
                with _dataset(path, key) as (data, transposed):
                    shape = tuple(int(size) for size in data.shape)
                    return shape[::-1] if transposed else shape
            case "mat5":
                return tuple(int(size) for size in _mat(path, key).shape)
    raise CaseError("unreadable", expected="an NPY, NPZ, HDF5 or MAT file", found="a file of another kind")


def _plane(array: NDArray[Any], index: int | None, along: int) -> NDArray[Any]:
    if index is None:
        return np.asarray(array)
    _check_index(array.shape, index, along)
    return np.ascontiguousarray(np.moveaxis(array, along, 0)[index])


def _check_index(shape: tuple[int, ...], index: int, along: int) -> None:
    if along >= len(shape) or index >= shape[along]:
        raise CaseError(
            "image_missing",
            expected=f"an array with a plane {index} along axis {along}",
            found=f"an array of shape {tuple(shape)}",
        )


def _chosen(key: str, names: list[str]) -> str:
    """The variable to read; CaseError `variable` where it is not there, or not the only one."""
    if key in names or (not key and len(names) == 1):
        return key or names[0]
    listed = ", ".join(sorted(names)[:12]) or "no array"
    raise CaseError(
        "variable",
        expected=f"an array {key!r}" if key else "one array",
        found=listed,
        fix="Name it in the card: Layout(image_key=…, label_key=…)",
    )


def _check_kind(dtype: Any, shape: tuple[int, ...], stored_bytes: int) -> None:
    """Judge a header: numbers, not more than a volume may have, and not more than the file can hold."""
    if np.dtype(dtype).kind not in "biuf":
        raise CaseError("unreadable", expected="an array of numbers", found=f"an array of {dtype}")
    count = math.prod(int(size) for size in shape)
    if count > MAX_VOXELS:
        raise too_large(count, MAX_VOXELS, "values")
    judge(count * np.dtype(dtype).itemsize, stored_bytes)


def _npy(path: Path) -> NDArray[Any]:
    """A view of the file, so that one plane of a stack costs one plane."""
    array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.dtype.kind not in "biuf":
        raise CaseError("unreadable", expected="an array of numbers", found=f"an array of {array.dtype}")
    return array


def _members(archive: zipfile.ZipFile) -> dict[str, str]:
    """Variable -> member of an NPZ."""
    return {name.removesuffix(".npy"): name for name in archive.namelist() if name.endswith(".npy")}


def _header(archive: zipfile.ZipFile, member: str) -> tuple[tuple[int, ...], Any]:
    """Shape and dtype of a member, judged against what the archive stores for it."""
    info = archive.getinfo(member)
    with archive.open(info) as handle:
        version = np.lib.format.read_magic(handle)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(handle)
    if dtype.kind in "biuf":
        claimed = math.prod(shape) * dtype.itemsize
        if claimed > info.file_size:
            raise CaseError("unreadable", expected=f"{claimed} bytes, as the header says", found=f"{info.file_size}")
        _check_kind(dtype, shape, info.compress_size)
    return tuple(int(size) for size in shape), dtype


def _npz(path: Path, key: str) -> NDArray[Any]:
    with zipfile.ZipFile(path) as archive:
        members = _members(archive)
        shapes = {name: _header(archive, member) for name, member in members.items()}
    kind = _sparse_kind(members)
    if kind and (not key or key not in members):
        return _sparse(path, kind, "")
    inner = {name[len(key) + 1 :]: name for name in members if key and name.startswith((f"{key}_", f"{key}."))}
    if key not in members and (kind := _sparse_kind(inner)):
        return _sparse(path, kind, next(iter(inner.values()))[: len(key) + 1])
    name = _chosen(key, list(members))
    if shapes[name][1].kind not in "biuf":
        raise CaseError("unreadable", expected="an array of numbers", found=f"an array of {shapes[name][1]}")
    with np.load(path, allow_pickle=False) as file:
        array: NDArray[Any] = file[name]
    return array


def _streamed(path: Path, key: str, index: int) -> NDArray[Any] | None:
    """One image of a dense NPZ stack; None where it must be read whole: sparse, or in Fortran order."""
    with zipfile.ZipFile(path) as archive:
        members = _members(archive)
        if (not key and len(members) != 1) or (key and key not in members):
            return None
        member = members[_chosen(key, list(members))]
        shape, dtype = _header(archive, member)
    if dtype.kind not in "biuf" or not shape:
        return None
    _check_index(shape, index, 0)
    return read_plane(path, member, index)


@lru_cache(maxsize=2)
def _held_mat(path: Path, key: str, size: int, mtime_ns: int, inode: int) -> NDArray[Any]:
    """A stack in a MAT file, at most 2 GiB by its format, which scipy reads whole: held for its other images."""
    return _mat(path, key)


def _sparse_kind(names: dict[str, str]) -> str:
    """Which sparse layout these variables are: of SciPy's `save_npz`, or of pydata's `sparse.save_npz`; "" for none."""
    if {"format", "shape", "data"} <= set(names):
        return "scipy"
    if {"coords", "shape", "data"} <= set(names):
        return "pydata"
    if {"indices", "indptr", "shape", "data"} <= set(names):
        return "csr"
    return ""


def _sparse(path: Path, kind: str, prefix: str) -> NDArray[Any]:
    """A sparse array made dense, after its shape was judged: it says it in 16 bytes, whatever it claims."""
    with np.load(path, allow_pickle=False) as file:
        parts = {name[len(prefix) :]: file[name] for name in file.files if name.startswith(prefix)}
    shape = tuple(int(size) for size in np.atleast_1d(parts["shape"]))
    count = math.prod(shape)
    if any(size < 0 for size in shape) or count > MAX_VOXELS:
        raise too_large(count, MAX_VOXELS, "values")
    _check_kind(parts["data"].dtype, (), 1)
    if kind == "pydata":
        coords = parts["coords"]
        dense = np.full(shape, parts.get("fill_value", np.zeros(1, parts["data"].dtype)), dtype=parts["data"].dtype)
        if coords.shape[0] != len(shape) or (coords.size and (coords.min() < 0)):
            raise CaseError("unreadable", expected=f"{len(shape)} coordinates a value", found=f"{coords.shape}")
        dense[tuple(coords)] = parts["data"]
        return dense
    from scipy import sparse

    said = parts.get("format", np.array(kind)).item()
    layout = said.decode("ascii") if isinstance(said, bytes) else str(said)
    if layout not in _SCIPY_SPARSE or len(shape) != 2:
        raise CaseError("unreadable", expected="a SciPy sparse matrix", found=f"format {layout!r}, shape {shape}")
    if layout == "coo":
        matrix: Any = sparse.coo_array((parts["data"], (parts["row"], parts["col"])), shape=shape)
    elif layout == "dia":
        matrix = sparse.dia_array((parts["data"], parts["offsets"]), shape=shape)
    else:
        make = {"csr": sparse.csr_array, "csc": sparse.csc_array, "bsr": sparse.bsr_array}[layout]
        matrix = make((parts["data"], parts["indices"], parts["indptr"]), shape=shape)
        matrix.check_format(full_check=True)  # an index outside of the shape would be written outside of the array
    dense_matrix: NDArray[Any] = matrix.toarray()
    return dense_matrix


@contextmanager
def _dataset(path: Path, key: str) -> Iterator[tuple[Any, bool]]:
    """An open HDF5 dataset, and whether MATLAB wrote it, so that its axes are reversed."""
    import h5py

    with h5py.File(path, "r") as file:
        names: list[str] = []
        _walk(file, "", names)
        data = file[_chosen(key.strip("/"), names)]
        if data.external or data.is_virtual:
            raise CaseError("unreadable", expected="values in the file itself", found="a link to another file")
        _check_kind(data.dtype, data.shape, max(int(data.id.get_storage_size()), 1))
        yield data, "MATLAB_class" in data.attrs


def _walk(group: Any, prefix: str, names: list[str], depth: int = 0) -> None:
    """Names of the datasets of numbers below a group. Hard links alone: others may leave the file."""
    import h5py

    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink) or name == "#refs#":
            continue
        item = group[name]
        if isinstance(item, h5py.Dataset):
            names.append(f"{prefix}{name}")
        elif depth < 16 and len(names) < 10_000:
            _walk(item, f"{prefix}{name}/", names, depth + 1)


def _hdf5(path: Path, key: str, index: int | None, along: int) -> NDArray[Any]:
    with _dataset(path, key) as (data, transposed):
        if index is None:
            whole: NDArray[Any] = np.asarray(data[()])
            return whole.T if transposed else whole
        shape = data.shape[::-1] if transposed else data.shape
        _check_index(shape, index, along)
        stored = len(shape) - 1 - along if transposed else along
        plane: NDArray[Any] = np.asarray(data[(slice(None),) * stored + (index,)])
        return plane.T if transposed else plane


def _mat(path: Path, key: str) -> NDArray[Any]:
    """A variable of a MAT file of version 5; `a/b` is the field `b` of the struct `a`."""
    from scipy import io, sparse

    name, *fields = key.split("/") if key else [""]
    check_mat5(path)
    try:
        listed = io.whosmat(path)
    except io.matlab.MatReadError as error:  # it derives from none of Python's own errors
        raise ValueError(str(error)) from error
    chosen = _chosen(name, [each for each, _, _ in listed])
    for each, shape, _ in listed:
        if each == chosen:
            count = math.prod(int(size) for size in shape)
            if count > MAX_VOXELS:
                raise too_large(count, MAX_VOXELS, "values")
            judge(count, path.stat().st_size)
    value: Any = io.loadmat(path, variable_names=[chosen])[chosen]
    for each in fields:
        fields_there = value.dtype.names or ()
        if each not in fields_there:
            raise CaseError("variable", expected=f"a field {each!r}", found=", ".join(fields_there) or "no field")
        value = value[each].flat[0]
    if sparse.issparse(value):
        stored: Any = value
        matrix: Any = sparse.csc_array(stored)
        if math.prod(matrix.shape) > MAX_VOXELS:
            raise too_large(math.prod(matrix.shape), MAX_VOXELS, "values")
        matrix.check_format(full_check=True)
        value = matrix.toarray()
    array: NDArray[Any] = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise CaseError("unreadable", expected="an array of numbers", found=f"an array of {array.dtype}")
    return array
