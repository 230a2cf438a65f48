"""The way back: masks on the harmonized slices of a case to files on its original grid.

The truth of a version, or predictions made on its samples, become a NIfTI for each concept and, where the
source is a DICOM series, a DICOM-SEG that refers to it. `geometry.to_original_grid` is the inverse
(`schema/grid.py` has one without SimpleITK, for evaluation).
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from infra.errors import DataError, UsageError
from infra.storage import sha256_file, staged_folder, write_json
from preprocessing import schema
from preprocessing.cards import DatasetCard, cases_of
from preprocessing.dicom_seg_writer import Algorithm, is_dicom, write_dicom_seg
from preprocessing.harmonize import geometry
from preprocessing.nifti_writer import write_nifti
from preprocessing.schema import rle
from preprocessing.splits import pseudonym
from preprocessing.stack import stack_masks

Masks = dict[str, NDArray[np.bool_]]
TRUTH = Algorithm()
INDEX_FILE = "masks.json"


def original_masks(folder: Path, case_id: str, predictions: Path | None = None) -> tuple[Masks, dict[str, Any]]:
    """Masks by concept on the original grid of a case, (z, y, x) or (height, width), and its row of cases.parquet.

    The truth of the version in `folder`, or `predictions` (see `read_predictions`) made on its samples. A concept
    that was searched for, or predicted, and is nowhere has an empty mask. UsageError for an unknown case.
    """
    case_row = _case_row(folder, case_id)
    rows = _rows(folder, case_id)
    concepts = {one for row in rows for one in row["absent"]}
    if predictions is not None:
        found = read_predictions(predictions, {str(row["sample_id"]): row for row in rows})
        rows = [{**row, "objects": found.get(row["sample_id"], [])} for row in rows]
        concepts = {item["concept"] for items in found.values() for item in items}
    masks = stack_masks(rows, case_row)
    shape = next(iter(masks.values())).shape if masks else _shape(case_row)
    for concept in concepts - set(masks):
        masks[concept] = np.zeros(shape, dtype=bool)
    return {one: geometry.to_original_grid(mask, case_row) for one, mask in sorted(masks.items())}, case_row


def read_predictions(path: Path, samples: dict[str, dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Predicted objects of some samples: sample id -> [{"concept", "rle"}].

    A Parquet file, or one JSON a line, with `sample_id`, `concept` and `rle` (COCO compressed `counts` at the
    sample's size); lines of other samples are passed over. DataError where no line is about these samples or a
    mask does not fit.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    number = 0
    for number, line in enumerate(_lines(path), start=1):
        if not isinstance(line, dict) or not {"sample_id", "concept", "rle"} <= set(line):
            msg = f"{path.name}: line {number}: expected sample_id, concept and rle, found {str(line)[:120]}"
            raise DataError(msg)
        row = samples.get(line["sample_id"])
        if row is not None:
            _check_size(path, number, line, row)
            found.setdefault(row["sample_id"], []).append({"concept": line["concept"], "rle": line["rle"]})
    if not found:
        msg = f"{path.name}: expected masks of {next(iter(samples))} …, found none among {number} line(s)"
        raise DataError(msg)
    return found


def back(
    folder: Path,
    card: DatasetCard,
    case_id: str,
    target: Path,
    *,
    root: Path | None,
    pseudonym_key: bytes,
    predictions: Path | None = None,
    algorithm: Algorithm = TRUTH,
) -> dict[str, Any]:
    """Write the masks of one case into the new folder `target`; return what `masks.json` there says.

    A NIfTI for each concept, for a 2D case a PNG of 0 and 255; for a DICOM source, whose raw files lie below
    `root`, also `segmentation.dcm`, or `no_dicom_seg` says why a SEG cannot be. The raw files must be those
    that the version was made of (DataError).
    """
    masks, case_row = original_masks(folder, case_id, predictions)
    told: dict[str, Any] = {
        "dataset": case_row["dataset"],
        "case_id": case_id,
        "masks": "predictions" if predictions else "truth",
        "algorithm": {"name": algorithm.name, "version": algorithm.version} if algorithm.name else None,
        "files": {},
        "voxels": {concept: int(mask.sum()) for concept, mask in masks.items()},
    }
    series = _series(folder, card, case_id, root, pseudonym_key) if case_row["dimensions"] == 3 and root else []
    with staged_folder(target) as staging:
        for number, (concept, mask) in enumerate(masks.items(), start=1):
            name = f"{number:02d}_{re.sub(r'[^a-z0-9]+', '_', concept.lower())[:60]}"
            if case_row["dimensions"] == 3:
                write_nifti(mask.astype(np.uint8), case_row, "original", staging / f"{name}.nii.gz")
                told["files"][concept] = f"{name}.nii.gz"
            else:
                Image.fromarray(mask.astype(np.uint8) * 255).save(staging / f"{name}.png")
                told["files"][concept] = f"{name}.png"
        if series and masks:
            try:
                write_dicom_seg(masks, series, case_row, algorithm, staging / "segmentation.dcm")
                told["dicom_seg"] = "segmentation.dcm"
            except DataError as error:  # the NIfTI files are right all the same
                told["no_dicom_seg"] = str(error)
        write_json(staging / INDEX_FILE, told)
    return told


def _case_row(folder: Path, case_id: str) -> dict[str, Any]:
    cases = {str(row["case_id"]): row for row in pq.read_table(folder / schema.CASES_FILE).to_pylist()}
    if case_id not in cases:
        near = difflib.get_close_matches(case_id, list(cases), n=3, cutoff=0.3) or sorted(cases)[:3]
        msg = f"no case {case_id!r} in this version of {folder.name}; near: {', '.join(near)}"
        raise UsageError(msg)
    row: dict[str, Any] = cases[case_id]
    return row


def _rows(folder: Path, case_id: str) -> list[dict[str, Any]]:
    table: pa.Table = pq.read_table(
        folder / schema.MANIFEST_FILE, schema=schema.MANIFEST_SCHEMA, filters=pc.field("case_id") == case_id
    )
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def _shape(case_row: dict[str, Any]) -> tuple[int, ...]:
    size = [int(value) for value in case_row["harmonized_size_xyz"]]
    return tuple(reversed(size))


def _lines(path: Path) -> Iterator[Any]:
    if not path.is_file():
        msg = f"{path}: expected a file of predictions (Parquet or one JSON a line), found none"
        raise UsageError(msg)
    try:
        if path.read_bytes()[:4] == b"PAR1":
            yield from pq.read_table(path, columns=["sample_id", "concept", "rle"]).to_pylist()
        else:
            with path.open(encoding="utf-8") as file:
                yield from (json.loads(line) for line in file if line.strip())
    except (ValueError, pa.ArrowException) as error:
        msg = f"{path.name}: expected Parquet or one JSON a line with sample_id, concept, rle, found: {error}"
        raise DataError(msg) from error


def _check_size(path: Path, number: int, line: dict[str, Any], row: dict[str, Any]) -> None:
    try:
        rle.decode(line["rle"], row["height"], row["width"])
    except (ValueError, AttributeError, TypeError) as error:
        msg = (
            f"{path.name}: line {number}: {line['sample_id']}: expected a mask of {row['height']} x {row['width']} "
            f"pixels (height x width), found: {error}"
        )
        raise DataError(msg) from error


def _series(folder: Path, card: DatasetCard, case_id: str, root: Path, key: bytes) -> list[Path]:
    """The files of a case's DICOM series, which are those that the version was made of; empty for other sources."""
    known = {item["sha256"] for row in _rows(folder, case_id)[:1] for item in row["source"]}
    for case in cases_of(card)(root):
        if (case.case_id if card.public else pseudonym(card.domain, case.case_id, key, "c")) == case_id:
            files = [root / file for file in case.images]
            if not files or not is_dicom(files[0]):
                return []
            changed = [file.name for file in files if sha256_file(file) not in known]
            if changed:
                msg = (
                    f"{card.name}/{case_id}: {changed[0]}: expected the file that the version was made of, found other "
                    f"bytes in {len(changed)} file(s). Ingest again: segfoundry data ingest {card.name}"
                )
                raise DataError(msg)
            return files
    msg = f"{card.name}/{case_id}: expected its raw files below the dataset's folder, found no such case"
    raise DataError(msg)
