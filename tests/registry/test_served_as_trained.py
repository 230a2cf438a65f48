"""A model is shown, slice for slice and byte for byte, what training showed it of the same file."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infra.storage import sha256_file
from preprocessing.cards import DatasetCard, cases_of, load_card
from preprocessing.harmonize.case import CaseItem, process
from preprocessing.harmonize.payload import decode
from preprocessing.phantoms import make_phantom
from preprocessing.serving import Reader

PHANTOMS = ("Phantom_CT_DICOM", "Phantom_MR_NIfTI", "Phantom_Nuclei", "Phantom_Lesion_US")
REAL = ("dcmqi", "MSD_Hippocampus_udacity", "TotalSegmentator_tests", "elastix_lung_mha", "BUSI", "ISIC2017", "DSB2018")


def rows_of(card: DatasetCard, root: Path) -> tuple[Path, list[dict[str, Any]]]:
    """The first sound case of a dataset: its file, or the folder of its series, and its rows."""
    for case in itertools.islice(cases_of(card)(root), 20):
        if not case.images or not case.labels:
            continue
        item = CaseItem(
            card=card, case=case, root=str(root), sha256={file: sha256_file(root / file) for file in case.files},
            orientation="LPS", min_object_area_px=1, shown_id="one", shown_files={file: file for file in case.files},
        )  # fmt: skip
        rows = process(item).rows
        if rows:
            return root / case.images[0] if len(case.images) == 1 else (root / case.images[0]).parent, rows
    pytest.fail(f"{card.name}: no sound case among the first 20")


def check(name: str, root: Path) -> None:
    card = load_card(name)
    said = card.resolved()
    like = {fact: said[fact] for fact in ("modality", "intensity", "axes", "spacing_mm_zyx", "frame") if said.get(fact)}
    file, rows = rows_of(card, root)
    reader = Reader({name: {**like, "samples": 1}})
    for params in ({"like": name}, {}):  # named, and as the only training set by itself
        scene = reader.read(file, params)
        if scene.axes == "yx":
            shown = [scene.pixels]
        else:
            assert scene.axis == rows[0]["axis"]
            shown = [plane for _, plane in zip(rows, scene.pixels, strict=False)]
            rows = [row for row in rows if row["axis"] == scene.axis]
            assert len(scene.pixels) == len(rows)
        for row, pixels in zip(rows, shown, strict=False):
            expected = decode(row["image"])
            if expected.ndim == 2 and pixels.ndim == 3:
                expected = np.repeat(expected[:, :, None], 3, axis=2)
            assert np.array_equal(pixels, expected), row["sample_id"]


@pytest.mark.parametrize("name", PHANTOMS)
def test_a_phantom(name: str, tmp_path: Path):
    make_phantom(name, tmp_path, 7)
    check(name, tmp_path / name)


@pytest.mark.parametrize("name", REAL)
def test_a_real_file(name: str, mirror: Path):
    if not (mirror / name).is_dir():
        pytest.skip(f"the mirror has no {name}")
    check(name, mirror / name)
