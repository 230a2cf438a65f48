"""nnU-Net v2 raw data: `imagesTr`, `labelsTr`, `imagesTs`, `labelsTs`, `dataset.json`.

Written to what nnU-Net's `verify_dataset_integrity`, `LabelManager` and readers ask for (MIC-DKFZ/nnUNet).
train and val are its training cases, test its test cases. Its own cross-validation knows no patients:
`splits_final.json` holds our train and val and belongs into `nnUNet_preprocessed/<dataset>/`.

- Volumes are rebuilt from their slices on the harmonized grid, 8 bits a channel, as `.nii.gz` with that
  grid's spacing, origin and direction. Pictures are PNG with the payload's pixels.
- A voxel of several concepts gets a label of its own, and concepts become nnU-Net regions: nothing is
  painted over. `regions_class_order` then decides alone what nnU-Net writes where it predicts both.
- A background pixel of a sample that was not searched for every concept may be one of them: it gets
  nnU-Net's `ignore` label.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from infra.errors import DataError, UsageError
from infra.storage import write_json
from preprocessing import schema
from preprocessing.export.rows import file_keys, known_concepts, rows_of
from preprocessing.harmonize.payload import decode
from preprocessing.nifti_writer import write_nifti
from preprocessing.schema.pixels import channels_of
from preprocessing.stack import in_order, masks_of_row, stack_pixels, stack_planes

Combination = tuple[str, ...]
_MOST_LABELS = 255  # of an 8-bit label picture
_HELD_OUT = "test"


@dataclass(frozen=True)
class Coding:
    """Label values: of one concept alone, of concepts that share a voxel, and of what is not known."""

    concepts: tuple[str, ...]
    values: dict[Combination, int]
    ignore: int  # 0: every sample was searched for every concept

    def labels(self) -> dict[str, int | list[int]]:
        """The `labels` of `dataset.json`: a region (list) for each concept that shares voxels with another."""
        found: dict[str, int | list[int]] = {"background": 0}
        for concept in self.concepts:
            own = sorted(value for combination, value in self.values.items() if concept in combination)
            found[concept] = own if len(own) > 1 else own[0]
        if self.ignore:
            found["ignore"] = self.ignore
        return found

    @property
    def has_regions(self) -> bool:
        """Whether any concepts overlap."""
        return len(self.values) > len(self.concepts)

    def paint(self, row: dict[str, Any]) -> NDArray[np.uint8]:
        """The label picture (height, width) of one row."""
        label, combinations = _paint(row)
        outside = self.ignore if set(self.concepts) - known_concepts(row) else 0
        table = np.array([outside, *(self.values[one] for one in combinations)], dtype=np.uint8)
        painted: NDArray[np.uint8] = table[label]
        return painted


def check_name(target: Path) -> None:
    """UsageError unless the folder is named as nnU-Net wants it, e.g. Dataset042_BUSI."""
    if not re.fullmatch(r"Dataset\d{3}_\w[\w-]*", target.name):
        msg = f"{target.name}: nnU-Net expects Dataset<three digits>_<name>, for example Dataset042_{target.name}"
        raise UsageError(msg)


def write(folder: Path, target: Path, split: str = "", *, dimensions: int = 0) -> dict[str, Any]:
    """Write the raw dataset into `target`. UsageError for a mix without `dimensions` 2 or 3."""
    report = schema.read_dataset_file(folder)
    cases = {row["case_id"]: row for row in pq.read_table(folder / schema.CASES_FILE).to_pylist()}
    kinds = {row["dimensions"] for row in cases.values()}
    if len(kinds) > 1 and not dimensions:
        msg = f"{report['dataset']} has pictures and volumes, and nnU-Net keeps one kind: give --dimensions 2 or 3"
        raise UsageError(msg)
    wanted = dimensions or kinds.pop()
    chosen = {name for name, row in cases.items() if row["dimensions"] == wanted}
    prefix = f"{report['dataset']}/"
    coding = _coding(report["dataset"], _labels(folder, split, chosen))
    for part in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
        (target / part).mkdir()
    channels = _channels(folder, split, chosen)
    members: dict[str, list[str]] = {name: [] for name in schema.SPLITS}
    samples = objects = 0
    if wanted == 2:
        keys = file_keys(row["sample_id"].removeprefix(prefix) for row in _labels(folder, split, chosen))
    else:
        keys = file_keys(sorted(chosen))
    for case_id, rows in _by_case(folder, split, chosen):
        where = "Ts" if rows[0]["split"] == _HELD_OUT else "Tr"
        images, labels = target / f"images{where}", target / f"labels{where}"
        if wanted == 3:
            _volume(rows, cases[case_id], coding, images, labels, keys[case_id], channels)
            members[rows[0]["split"]].append(keys[case_id])
        else:
            for row in rows:
                key = keys[row["sample_id"].removeprefix(prefix)]
                _picture(row, coding, images, labels, key, channels)
                members[row["split"]].append(key)
        samples, objects = samples + len(rows), objects + sum(len(row["objects"]) for row in rows)
    notes = _notes(coding, members)
    _describe(target, report, coding, members, channels, wanted, notes)
    return {
        "samples": samples,
        "objects": objects,
        "files": ["dataset.json", "splits_final.json", "imagesTr/", "labelsTr/", "imagesTs/", "labelsTs/"],
        "notes": notes,
    }


def _labels(folder: Path, split: str, cases: set[str]) -> Iterator[dict[str, Any]]:
    """The rows without payload."""
    names = ["sample_id", "case_id", "split", "height", "width", "objects", "absent"]
    for batch in pq.read_table(folder / schema.MANIFEST_FILE, columns=names).to_batches(max_chunksize=1024):
        for row in batch.to_pylist():
            if row["case_id"] in cases and (not split or row["split"] == split):
                yield row


def _coding(dataset: str, rows: Iterable[dict[str, Any]]) -> Coding:
    single: set[str] = set()
    shared: set[Combination] = set()
    known: list[frozenset[str]] = []
    for row in rows:
        single |= {item["concept"] for item in row["objects"]}
        known.append(frozenset(known_concepts(row)))
        if _boxes_meet(row):
            shared |= {one for one in _paint(row)[1] if len(one) > 1}
    concepts = tuple(sorted(single))
    values: dict[Combination, int] = {(concept,): index for index, concept in enumerate(concepts, start=1)}
    values |= {one: index for index, one in enumerate(sorted(shared), start=len(values) + 1)}
    partly = any(set(concepts) - one for one in set(known))
    if len(values) + partly > _MOST_LABELS:
        msg = f"{dataset}: {len(values)} label values (concepts and their overlaps); 8 bits hold {_MOST_LABELS}"
        raise DataError(msg)
    return Coding(concepts, values, len(values) + 1 if partly else 0)


def _paint(row: dict[str, Any]) -> tuple[NDArray[np.intp], list[Combination]]:
    """Index of the concepts of each pixel, 0 for none, and the combination of concepts of index 1, 2, …"""
    label = np.zeros((row["height"], row["width"]), dtype=np.intp)
    known: dict[Combination, int] = {(): 0}
    for concept, mask in sorted(masks_of_row(row).items()):
        before = label[mask]
        for index in np.unique(before):
            combination = (*list(known)[index], concept)
            label[mask & (label == index)] = known.setdefault(combination, len(known))
    present = np.unique(label)
    combinations = [list(known)[index] for index in present if index]
    renumbered = np.zeros(len(known), dtype=np.intp)
    renumbered[[index for index in present if index]] = np.arange(1, len(combinations) + 1)
    return renumbered[label], combinations


def _boxes_meet(row: dict[str, Any]) -> bool:
    """Whether boxes of different concepts overlap: without that no masks do."""
    items = row["objects"]
    if len({item["concept"] for item in items}) < 2:
        return False
    boxes = np.array([item["bbox_xyxy"] for item in items])
    names = np.array([item["concept"] for item in items])
    for index in range(len(items)):
        x0, y0, x1, y1 = boxes[index]
        meets = (boxes[:, 0] < x1) & (x0 < boxes[:, 2]) & (boxes[:, 1] < y1) & (y0 < boxes[:, 3])
        if (meets & (names != names[index])).any():
            return True
    return False


def _by_case(folder: Path, split: str, cases: set[str]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Rows with payload of one case after the other: a case lies in one shard, its rows side by side."""
    for case_id, rows in groupby(rows_of(folder, split), key=lambda row: str(row["case_id"])):
        if case_id in cases:
            yield case_id, list(rows)


def _channels(folder: Path, split: str, cases: set[str]) -> int:
    """1, or 3 where any sample has colours or windows; read from the payloads' headers."""
    most = 1
    for row in rows_of(folder, split):
        if row["case_id"] in cases:
            most = max(most, channels_of(row["image"]))
        if most == 3:
            break
    return most


def _picture(row: dict[str, Any], coding: Coding, images: Path, labels: Path, key: str, channels: int) -> None:
    pixels = decode(row["image"])
    if channels == 3 and pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    Image.fromarray(pixels).save(images / f"{key}_0000.png", compress_level=1)
    Image.fromarray(coding.paint(row)).save(labels / f"{key}.png", compress_level=1)


def _volume(
    rows: Sequence[dict[str, Any]],
    case_row: dict[str, Any],
    coding: Coding,
    images: Path,
    labels: Path,
    key: str,
    channels: int,
) -> None:
    voxels = stack_pixels(rows, case_row)
    if voxels.ndim == 3:
        voxels = np.repeat(voxels[..., None], channels, axis=3)
    for channel in range(channels):
        write_nifti(voxels[..., channel], case_row, "harmonized", images / f"{key}_{channel:04d}.nii.gz")
    painted = [coding.paint(dict(row)) for row in in_order(rows, case_row)]
    write_nifti(stack_planes(painted, rows, case_row), case_row, "harmonized", labels / f"{key}.nii.gz")


def _describe(
    target: Path,
    report: dict[str, Any],
    coding: Coding,
    members: dict[str, list[str]],
    channels: int,
    dimensions: int,
    notes: list[str],
) -> None:
    training = sorted([*members["train"], *members["val"]])
    if dimensions == 2:
        names = {str(index): name for index, name in enumerate("RGB" if channels == 3 else ["grey"])}
    else:  # not plainly "CT": these are 8 bits of a window, and nnU-Net would clip them as HU
        names = {str(index): f"{report['modality']}, 8 bit {index}" for index in range(channels)}
    described: dict[str, Any] = {
        "name": report["dataset"],
        "description": report["title"],
        "reference": report["citation"],
        "licence": report["licence"].get("terms", ""),
        "release": report["manifest_digest"],
        "channel_names": names,
        "labels": coding.labels(),
        "numTraining": len(training),
        "file_ending": ".png" if dimensions == 2 else ".nii.gz",
        "overwrite_image_reader_writer": "NaturalImage2DIO" if dimensions == 2 else "SimpleITKIO",
        "segfoundry": {
            "values": {str(value): list(combination) for combination, value in coding.values.items()},
            "notes": notes,
        },
    }
    if coding.has_regions:
        described["regions_class_order"] = [coding.values[(concept,)] for concept in coding.concepts]
    write_json(target / "dataset.json", described)
    write_json(target / "splits_final.json", [{"train": sorted(members["train"]), "val": sorted(members["val"])}])


def _notes(coding: Coding, members: dict[str, list[str]]) -> list[str]:
    notes = ["copy splits_final.json to nnUNet_preprocessed/<dataset>/: nnU-Net's own folds mix patients"]
    if not (members["train"] or members["val"]):
        notes.append("no training case in what was exported: nnU-Net can predict on it, not train")
    if coding.has_regions:
        shared = sorted(" + ".join(one) for one in coding.values if len(one) > 1)
        more = f" and {len(shared) - 3} more" if len(shared) > 3 else ""
        notes.append(f"overlapping concepts have labels of their own and are regions: {', '.join(shared[:3])}{more}")
    if coding.ignore:
        notes.append(f"label {coding.ignore} (ignore): background of samples that were not searched for every concept")
    return notes
