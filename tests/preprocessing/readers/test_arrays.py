"""Arrays written by numpy, scipy, h5py and pydata's sparse layout come back as they were written."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scipy import sparse
from scipy.io import savemat

from infra.errors import CaseError
from preprocessing.cards import ByChannel, ByValue, InstanceIds, Layout
from preprocessing.readers import arrays
from tests.preprocessing.made import WIDE, card_of, mask, masks, only, pixels, read

RNG = np.random.default_rng(11)
VALUES = RNG.integers(0, 200, (4, 12, 10), dtype=np.int16)
LABEL = (RNG.random((12, 10)) > 0.6).astype(np.uint8)


def matlab73(path: Path, **variables: np.ndarray) -> None:
    """As MATLAB writes -v7.3: HDF5 behind a block of text, axes reversed, the class as an attribute."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, value in variables.items():
            file[name] = np.asarray(value).T
            file[name].attrs["MATLAB_class"] = np.bytes_("double")
    with path.open("r+b") as handle:
        handle.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")


def write(path: Path, kind: str, array: np.ndarray) -> str:
    """Write one array in a format; return its key."""
    if kind == "npy":
        with path.open("wb") as handle:
            np.save(handle, array)
        return ""
    if kind == "fortran npy":
        with path.open("wb") as handle:
            np.save(handle, np.asfortranarray(array))
        return ""
    if kind in ("npz", "npz packed"):
        with path.open("wb") as handle:
            (np.savez if kind == "npz" else np.savez_compressed)(handle, imgs=array, other=np.zeros(3))
        return "imgs"
    if kind == "hdf5":
        with h5py.File(path, "w") as file:
            file.create_dataset("volumes/raw", data=array, compression="gzip", chunks=True)
            file["other"] = np.zeros(3)
        return "volumes/raw"
    if kind == "mat5":
        savemat(path, {"image": array, "other": np.zeros(3)}, appendmat=False, do_compression=True)
        return "image"
    matlab73(path, image=array, other=np.zeros(3))
    return "image"


@pytest.mark.parametrize("kind", ["npy", "fortran npy", "npz", "npz packed", "hdf5", "mat5", "mat73"])
def test_an_array_and_one_plane_of_it(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "misnamed.png"
    key = write(path, kind, VALUES)
    assert arrays.shape_of(path, key) == VALUES.shape
    assert np.array_equal(arrays.read_array(path, key), VALUES)
    for along in range(3):
        found = arrays.read_array(path, key, index=1, along=along)
        assert np.array_equal(found, np.take(VALUES, 1, axis=along))
    with pytest.raises(CaseError, match="image_missing"):
        arrays.read_array(path, key, index=4)
    if key:
        for wrong in ("", "no such"):
            with pytest.raises(CaseError, match=r"variable.*other"):
                arrays.read_array(path, wrong)


@pytest.mark.parametrize("layout", ["csr", "csc", "coo", "dia", "bsr"])
def test_scipy_sparse_matrices(tmp_path: Path, layout: str) -> None:
    dense = np.where(RNG.random((6, 40)) > 0.9, 3, 0).astype(np.int32)
    sparse.save_npz(tmp_path / "a.npz", sparse.coo_matrix(dense).asformat(layout))
    assert arrays.shape_of(tmp_path / "a.npz") == (6, 40)
    assert np.array_equal(arrays.read_array(tmp_path / "a.npz"), dense)


def test_sparse_masks_beside_a_dense_image(tmp_path: Path) -> None:
    image = RNG.integers(0, 256, (12, 10), dtype=np.uint8)
    stack = np.stack([LABEL, 1 - LABEL])
    matrix = sparse.csr_matrix(stack.reshape(2, -1))
    parts = {"gts_data": matrix.data, "gts_indices": matrix.indices, "gts_indptr": matrix.indptr}
    np.savez(tmp_path / "a.npz", imgs=image, gts_shape=matrix.shape, gts_format=b"csr", **parts)
    coords = np.argwhere(stack).T
    np.savez(tmp_path / "b.npz", coords=coords, data=np.ones(coords.shape[1]), shape=stack.shape, fill_value=0.0)
    np.save(tmp_path / "b.npy", image)
    rule = ByChannel({0: "gland", 1: "stroma"})
    layouts = (
        Layout(image=r"(?P<case>a)\.npz", image_key="imgs", label_key="gts", label_axes="cyx"),
        Layout(image=r"(?P<case>b)\.npy", label=r"(?P<case>b)\.npz", label_axes="cyx"),
    )
    for result in read(card_of(rule, *layouts), tmp_path).values():
        assert result.refusal is None
        assert np.array_equal(mask(result.rows[0], "gland"), LABEL == 1)
        assert np.array_equal(mask(result.rows[0], "stroma"), LABEL == 0)
        assert np.array_equal(pixels(result.rows[0]), image)


def test_a_stack_of_images_is_a_case_an_image_as_in_pannuke(tmp_path: Path) -> None:
    images = RNG.integers(0, 256, (3, 12, 10, 3)).astype(np.float64)
    labels = np.zeros((3, 12, 10, 6))
    labels[0, 2:5, 2:5, 0] = 7
    labels[0, 6:9, 2:5, 0] = 9
    labels[1, 1:4, 6:9, 4] = 3
    labels[..., 5] = 1
    for name, array in (("images", images), ("masks", labels)):
        (tmp_path / "Fold 1" / name / "fold1").mkdir(parents=True)
        np.save(tmp_path / "Fold 1" / name / "fold1" / f"{name}.npy", array)
    rule = ByChannel({0: "neoplastic nucleus", 4: "epithelial nucleus"}, instance_ids=True, ignore=(1, 2, 3, 5))
    where = r"(?P<case>Fold \d)/{0}/fold\d/{0}\.npy"
    layout = Layout(image=where.format("images"), label=where.format("masks"), stacked=True)
    results = read(card_of(rule, layout, instances="values", searched=("neoplastic nucleus",)), tmp_path)
    assert list(results) == ["Fold_1_00000", "Fold_1_00001", "Fold_1_00002"]
    first, second, third = (result.rows[0] for result in results.values())
    for index, row in enumerate((first, second, third)):
        assert np.array_equal(pixels(row), images[index].astype(np.uint8))
    assert [int(part.sum()) for part in masks(first, "neoplastic nucleus")] == [9, 9]
    assert [int(part.sum()) for part in masks(second, "epithelial nucleus")] == [9]
    assert (third["objects"], third["absent"]) == ([], ["neoplastic nucleus"])
    labels[2, 0, 0, 3] = 1
    np.save(tmp_path / "Fold 1/masks/fold1/masks.npy", labels)
    strict = ByChannel({0: "neoplastic nucleus", 4: "epithelial nucleus"}, instance_ids=True, ignore=(1, 2, 5))
    refused = read(card_of(strict, layout, instances="values"), tmp_path)["Fold_1_00002"].refusal
    assert refused is not None
    assert (refused["reason"], "channel 3" in refused["found"]) == ("unknown_label", True)


def test_classes_and_instances_in_two_variables_as_in_consep(tmp_path: Path) -> None:
    ids, kinds = np.zeros((12, 10)), np.zeros((12, 10))
    ids[1:3, 1:3], kinds[1:3, 1:3] = 1, 2
    ids[1:3, 3:5], kinds[1:3, 3:5] = 2, 2
    ids[6:9, 1:3], kinds[6:9, 1:3] = 3, 5
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    np.save(tmp_path / "images/a.npy", RNG.integers(0, 256, (12, 10, 3), dtype=np.uint8))
    for kind in ("mat5", "mat73"):
        if kind == "mat5":
            savemat(tmp_path / "masks/a.mat", {"inst_map": ids, "type_map": kinds, "inst_type": [[2], [2], [5]]})
        else:
            matlab73(tmp_path / "masks/a.mat", inst_map=ids, type_map=kinds)
        layout = Layout(
            image=r"images/(?P<case>\w+)\.npy",
            label=r"masks/(?P<case>\w+)\.mat",
            label_key="type_map",
            instance_key="inst_map",
        )
        rule = ByValue({2: "inflammatory nucleus", 5: "spindle nucleus"})
        row = only(read(card_of(rule, layout, instances="values"), tmp_path)).rows[0]
        assert [int(part.sum()) for part in masks(row, "inflammatory nucleus")] == [4, 4]
        assert [int(part.sum()) for part in masks(row, "spindle nucleus")] == [6]


def test_axes_in_any_order(tmp_path: Path) -> None:
    image = RNG.integers(0, 65536, (12, 10, 3), dtype=np.uint16)
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    np.save(tmp_path / "images/a.npy", image.transpose(2, 1, 0)[:, None])  # c, 1, x, y
    np.save(tmp_path / "masks/a.npy", LABEL.T.astype(np.float32))
    layout = Layout(
        image=r"images/(?P<case>\w+)\.npy", label=r"masks/(?P<case>\w+)\.npy", axes="cxy", label_axes="xy"
    )  # fmt: skip
    result = only(read(card_of(ByValue({1: "gland"}), layout, intensity=WIDE), tmp_path))
    assert np.array_equal(mask(result.rows[0], "gland"), LABEL == 1)
    assert np.array_equal(pixels(result.rows[0]), np.rint(image * (255 / 65535)).astype(np.uint8))
    assert json.loads(result.columns["intensity"]) == {
        "rule": "window", "limits": [0, 65535], "low": 0, "high": 65535
    }  # fmt: skip
    straight = Layout(image=layout.image, label=layout.label, axes="cxy", label_axes="yx")
    refused = only_refusal(read(card_of(ByValue({1: "gland"}), straight, intensity=WIDE), tmp_path))
    assert refused["reason"] == "mask_size"


def only_refusal(results: dict[str, Any]) -> dict[str, str]:
    (result,) = results.values()
    assert result.refusal is not None
    return result.refusal


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    class Malicious:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    np.save(tmp_path / "images/a.npy", np.array([Malicious()], dtype=object), allow_pickle=True)
    np.save(tmp_path / "masks/a.npy", LABEL)
    np.savez(tmp_path / "images/b.npz", imgs=np.array([Malicious()], dtype=object))
    np.save(tmp_path / "masks/b.npy", LABEL)
    for result in read(card_of(InstanceIds("gland")), tmp_path).values():
        assert result.refusal is not None
        assert result.refusal["reason"] == "unreadable"
    assert not (tmp_path / "ran").exists()


def test_links_out_of_an_hdf5_file_are_not_followed(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["raw"] = VALUES
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["raw"] = h5py.ExternalLink("secret.h5", "/raw")
        file["soft"] = h5py.SoftLink("/raw")
    with h5py.File(tmp_path / "v.h5", "w") as file:
        virtual = h5py.VirtualLayout(shape=VALUES.shape, dtype=VALUES.dtype)
        virtual[...] = h5py.VirtualSource(tmp_path / "secret.h5", "raw", shape=VALUES.shape)
        file.create_virtual_dataset("raw", virtual)
    for name in ("a.h5", "v.h5"):
        with pytest.raises(CaseError, match=r"variable|another file"):
            arrays.read_array(tmp_path / name, "raw")


def test_a_sparse_index_outside_of_its_shape_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", data=[1.0], indices=[99], indptr=[0, 1], shape=[1, 4], format=b"csr")
    np.savez(tmp_path / "b.npz", coords=[[0], [99]], data=[1.0], shape=[1, 4])
    np.savez(tmp_path / "c.npz", data=[1.0], indices=[0], indptr=[0, 1], shape=[1 << 31, 1 << 31], format=b"csr")
    for name in ("a.npz", "b.npz", "c.npz"):
        with pytest.raises(CaseError, match=r"unreadable|too_large"):
            arrays.read_array(tmp_path / name)


def test_a_broken_archive_is_unreadable(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, imgs=VALUES)
    content = buffer.getvalue()
    for at in range(0, len(content), 37):
        (tmp_path / "a.npz").write_bytes(content[:at])
        with pytest.raises(CaseError):
            arrays.read_array(tmp_path / "a.npz", "imgs")
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.writestr("readme.txt", "no array")
    with pytest.raises(CaseError, match=r"variable.*no array"):
        arrays.read_array(tmp_path / "b.npz")


@pytest.mark.parametrize("pack", [np.savez, np.savez_compressed])
def test_images_of_a_packed_stack_come_in_any_order(tmp_path: Path, pack: Any) -> None:
    stack = RNG.integers(0, 256, (9, 6, 7), dtype=np.uint8)
    pack(tmp_path / "a.npz", imgs=stack, turned=np.asfortranarray(stack), other=np.zeros(2))
    for index in (0, 1, 2, 5, 4, 8, 0, 7):
        for key in ("imgs", "turned"):
            assert np.array_equal(arrays.read_array(tmp_path / "a.npz", key, index), stack[index])
    with pytest.raises(CaseError, match="image_missing"):
        arrays.read_array(tmp_path / "a.npz", "imgs", 9)
    pack(tmp_path / "a.npz", imgs=stack[::-1])  # another file of the same name is not taken for the first
    assert np.array_equal(arrays.read_array(tmp_path / "a.npz", "imgs", 8), stack[0])


def test_every_kind_of_mat_variable_opens_and_a_wrong_tag_ends_no_process(tmp_path: Path) -> None:
    matrix = sparse.random(30, 20, 0.2, format="csc", random_state=1)
    for packed in (False, True):
        savemat(
            tmp_path / "a.mat",
            {"image": VALUES, "s": {"mask": LABEL, "name": "text"}, "cells": np.array([LABEL, "a"], dtype=object),
             "sparse": matrix, "logical": LABEL > 0, "big": np.arange(40_000.0)},
            do_compression=packed,
        )  # fmt: skip
        for key, value in (("image", VALUES), ("s/mask", LABEL), ("logical", LABEL > 0), ("sparse", matrix.toarray())):
            assert np.array_equal(arrays.read_array(tmp_path / "a.mat", key), value)
        assert arrays.shape_of(tmp_path / "a.mat", "big") == (1, 40_000)
    savemat(tmp_path / "a.mat", {"image": VALUES})
    content = (tmp_path / "a.mat").read_bytes()
    for at, byte in ((136, 7), (144, 1), (144, 99), (145, 0x5E), (152, 6), (176, 9), (192, 14), (196, 0xC1)):
        broken = bytearray(content)
        broken[at] = byte
        (tmp_path / "b.mat").write_bytes(broken)
        with pytest.raises(CaseError, match="unreadable"):
            arrays.read_array(tmp_path / "b.mat", "image")
