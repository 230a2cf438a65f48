"""Whole volumes on their original grid: a perfect answer scores 1 and 0 mm on every sample volume and on any grid."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing import schema
from preprocessing.back import original_masks
from preprocessing.harmonize import geometry
from preprocessing.schema.grid import spacing_zyx, to_original_grid
from tests.training.made_volumes import Case, counted, write_volumes
from training.scoring.surface import nsd_hd95
from training.scoring.volumes import NO_CASE, SHEARED, THINNED, measure_cases, said_of, volume_of


def case_row(image: sitk.Image, spacing_mm_zyx: tuple[float, float, float] | None = None) -> dict[str, Any]:
    """What cases.parquet says of a volume that is brought to LPS and perhaps resampled."""
    turned = geometry.regrid(geometry.orient(image, "LPS"), spacing_mm_zyx)
    row: dict[str, Any] = {"dimensions": 3, "original_orientation": geometry.orientation_of(image)}
    for name, each in (("original", image), ("harmonized", turned)):
        row[f"{name}_size_xyz"] = list(each.GetSize())
        row[f"{name}_spacing_mm_xyz"] = list(each.GetSpacing())
        row[f"{name}_origin_mm_xyz"] = list(each.GetOrigin())
        row[f"{name}_direction"] = list(each.GetDirection())
    return row


def volume(orientation: str, angles: tuple[float, float, float], seed: int) -> sitk.Image:
    """An anisotropic volume of an orientation, turned by angles (radians) about the scanner's axes."""
    draw = np.random.default_rng(seed)
    image = sitk.GetImageFromArray((draw.random((5, 7, 6)) < 0.4).astype(np.uint8))
    image.SetSpacing([0.8, 1.3, 4.0])
    image.SetOrigin(draw.uniform(-50, 50, 3).tolist())
    turned = sitk.Euler3DTransform((0, 0, 0), *angles)
    axes = np.array(sitk.DICOMOrient(sitk.Image([2, 2, 2], sitk.sitkUInt8), orientation).GetDirection()).reshape(3, 3)
    image.SetDirection((np.array(turned.GetMatrix()).reshape(3, 3) @ axes).ravel().tolist())
    return image


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(["LPS", "RAS", "RAI", "PIR", "ASL", "SRP"]),
    st.tuples(*[st.integers(-40, 40).map(lambda hundredths: hundredths / 100)] * 3),
    st.integers(0, 1000),
    st.sampled_from([None, (2.0, 0.7, 0.9), (4.0, 0.5, 1.3)]),
)
def test_any_grid_comes_back_as_simpleitk_brings_it(
    orientation: str, angles: tuple[float, float, float], seed: int, spacing: tuple[float, float, float] | None
) -> None:
    image = volume(orientation, angles, seed)
    row = case_row(image, spacing)
    shape = tuple(reversed(row["harmonized_size_xyz"]))
    for axis in range(3):  # every voxel tells its own place, from 1 on; 0 is outside
        place = np.broadcast_to(
            np.expand_dims(np.arange(1, shape[axis] + 1, dtype=np.uint8), [one for one in range(3) if one != axis]),
            shape,
        ).copy()
        wanted, found = (back(place, row).astype(int) for back in (geometry.to_original_grid, to_original_grid))
        assert found.shape == wanted.shape
        if spacing is None:
            np.testing.assert_array_equal(found, wanted)
        # a middle exactly between two voxels goes either way, by the last digit
        inside = (found > 0) & (wanted > 0)
        assert inside.any()
        assert np.abs(found - wanted)[inside].max() <= 1
    if spacing is None:
        mine = sitk.GetArrayFromImage(geometry.orient(image, "LPS")).astype(bool)
        np.testing.assert_array_equal(to_original_grid(mine, row), sitk.GetArrayFromImage(image).astype(bool))


def test_a_grid_that_does_not_run_along_is_refused() -> None:
    row = case_row(volume("LPS", (0, 0, 0), 0))
    row["original_direction"] = volume("LPS", (0.2, 0, 0), 0).GetDirection()
    with pytest.raises(ValueError, match="run along"):
        to_original_grid(np.zeros(tuple(reversed(row["harmonized_size_xyz"])), dtype=bool), row)


def said_by_truth(folder: Path, split: str) -> list[dict[str, Any]]:
    """What a model would say that is right on every slice: the truth of the slices, a row a known concept."""
    from preprocessing.schema import rle
    from training.decode import union_of
    from training.prepared import objects_by_concept

    found = []
    for row in pq.read_table(folder / schema.MANIFEST_FILE).to_pylist():
        if row["split"] != split or row["slice_index"] is None:
            continue
        objects = objects_by_concept(row)
        for concept in {*objects, *row["absent"]}:
            mask = union_of([item["rle"] for item in objects.get(concept, [])], row["height"], row["width"])
            place = {key: row[key] for key in ("case_id", "axis", "slice_index")}
            found.append({**place, "model": "after", "concept": concept, "rle": rle.encode(mask)})
    return found


SETS = ["dcmqi", "highdicom", "ivadomed_data-testing", "pyradiomics", "sct_testing_data", "TotalSegmentator_tests"]
"""Volumes of the mirror; with SEGFOUNDRY_SOAK every dataset of it, and all their volumes."""


@pytest.fixture(scope="module")
def sample_data(mirror: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dataset versions of the mirror's volumes, as the command line makes them."""
    there = sorted(path.name for path in mirror.iterdir() if path.is_dir())
    names = there if os.environ.get("SEGFOUNDRY_SOAK") else [name for name in SETS if name in there]
    place = tmp_path_factory.mktemp("volumes") / "workspace"
    command = [sys.executable, "-m", "pipelines", "data", "ingest", *names, "--workspace", str(place)]
    subprocess.run(command, check=False, capture_output=True)  # 1 where a set is quarantined as a whole
    return place / "data"


def sample_volumes(root: Path, most: int = 3) -> Iterator[tuple[Path, str, list[str]]]:
    """Dataset versions, each split with some of its volumes."""
    for file in sorted(root.glob("*/cases.parquet")):
        rows = pq.read_table(file, columns=["case_id", "split", "dimensions"]).to_pylist()
        for split in schema.SPLITS:
            cases = sorted(row["case_id"] for row in rows if row["dimensions"] == 3 and row["split"] == split)
            if cases:
                yield file.parent, split, cases if os.environ.get("SEGFOUNDRY_SOAK") else cases[:most]


def is_oblique(direction: list[float]) -> bool:
    return any(0.01 < abs(value) < 0.99 for value in direction)


def test_perfect_answers_to_sample_volumes(sample_data: Path) -> None:
    grids = []
    for folder, split, cases in sample_volumes(sample_data):
        said = said_of(one for one in said_by_truth(folder, split) if one["case_id"] in cases)
        rows, refused = measure_cases(folder, split, said, cases, 2.0)
        assert not refused, folder.name
        assert {row["case_id"] for row in rows} == {key[0] for key in said}, folder.name
        for row in rows:
            assert row["dice"] == 1, row
            assert (row["nsd"], row["hd95_mm"]) == ((1, 0) if row["present"] else (None, None)), row
        # the truth on the original grid is that which the other way, with SimpleITK, brings
        for case_id in cases:
            masks, case = original_masks(folder, case_id)
            spacing = spacing_zyx(case)
            assert spacing is not None, (folder.name, case_id)
            grids.append((spacing, case["original_direction"]))
            for concept, mask in masks.items():
                (mine,) = [row for row in rows if (row["case_id"], row["concept"]) == (case_id, concept)]
                assert mine["truth_voxels"] == int(mask.sum()), (folder.name, case_id, concept)
                assert nsd_hd95(mask, mask, spacing, 2.0) == (1, 0)
    assert any(max(spacing) > 2 * min(spacing) for spacing, _ in grids)
    assert any(is_oblique(direction) for _, direction in grids)


def write_cases(folder: Path, rows: dict[str, dict[str, Any]]) -> None:
    import pyarrow as pa

    table = [{**dict.fromkeys(schema.CASES_SCHEMA.names), "dataset": folder.name, "case_id": name, "group_id": name,
              "split": "test", "intensity": "{}", "source_voxels": "{}", "samples": 1, **row}
             for name, row in rows.items()]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(table, schema=schema.CASES_SCHEMA), folder / schema.CASES_FILE)


def test_an_answer_one_slice_off_is_one_slice_off_in_millimetres(tmp_path: Path) -> None:
    mask = np.zeros((6, 24, 40), dtype=bool)
    mask[2, 5:15, 10:20] = True
    case = Case("c", counted(6), {"liver": mask}, split="test")
    folder = write_volumes(tmp_path, "Made", [case])
    image = sitk.GetImageFromArray(np.zeros(mask.shape, dtype=np.uint8))
    image.SetSpacing([0.5, 0.5, 3.0])
    image.SetDirection([-1, 0, 0, 0, -1, 0, 0, 0, 1])  # rows and columns run the other way on the original grid
    assert measure_cases(folder, "test", said_of(said_by_truth(folder, "test")), ["c"], 2.0)[1] == [("c", NO_CASE)]
    write_cases(folder, {"c": case_row(image)})
    from preprocessing.schema import rle

    said = said_by_truth(folder, "test")
    for one in said:  # the mask of slice 2 on slice 3
        one["rle"] = rle.encode(mask[one["slice_index"] - 1] if one["slice_index"] else np.zeros_like(mask[0]))
    (row,) = measure_cases(folder, "test", said_of(said), ["c"], 2.0)[0]
    assert (row["dice"], row["nsd"], row["hd95_mm"]) == (0, 0, 3.0)
    assert (row["truth_voxels"], row["predicted_voxels"], row["voxel_mm3"]) == (100, 100, 0.75)
    assert measure_cases(folder, "test", said_of(said[:-1]), ["c"], 2.0) == ([], [("c", THINNED)])
    back = volume_of({2: mask[2]}, "z", case_row(image))
    np.testing.assert_array_equal(back, mask[:, ::-1, ::-1])


def test_a_tilted_gantry_is_not_measured_and_says_so(tmp_path: Path) -> None:
    mask = np.zeros((6, 24, 40), dtype=bool)
    mask[2, 5:15, 10:20] = True
    folder = write_volumes(tmp_path, "Made", [Case("c", counted(6), {"liver": mask}, split="test")])
    row = case_row(sitk.GetImageFromArray(np.zeros(mask.shape, dtype=np.uint8)))
    tilt = float(np.deg2rad(15))
    row["original_direction"] = [1, 0, 0, 0, 1, float(-np.sin(tilt)), 0, 0, float(np.cos(tilt))]
    write_cases(folder, {"c": row})
    assert measure_cases(folder, "test", said_of(said_by_truth(folder, "test")), ["c"], 2.0) == ([], [("c", SHEARED)])
