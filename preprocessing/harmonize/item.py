"""What one case needs wherever it runs, and the few steps that pictures and volumes share."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from infra.errors import CaseError
from preprocessing.cards import DatasetCard, Instances, LabelRule, Layout, RawCase
from preprocessing.harmonize.labels import Masks, dice

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class CaseItem:
    """Everything that one case needs, wherever it runs. `sha256`: file -> digest in the inventory."""

    card: DatasetCard
    case: RawCase
    root: str
    sha256: dict[str, str]
    orientation: str
    min_object_area_px: int
    shown_id: str  # case id and file names as they are written: pseudonyms where the dataset is not public
    shown_files: dict[str, str]
    image_codec: str = "png"  # of `schema.pixels.CODECS`: what a picture becomes that did not come as JPEG
    recipe: str = ""
    key: str = ""

    @property
    def rule(self) -> LabelRule:
        """The label rule: the layout's, else the card's."""
        return self.case.rule or self.card.labels

    @property
    def instances(self) -> Instances:
        """How instances are told apart: the layout's, else the card's."""
        return self.case.instances or self.card.instances

    @property
    def layout(self) -> Layout:
        """What the layout that found the case says about arrays and tiles; nothing for a case that none found."""
        return self.case.layout or Layout(image="")

    def path(self, file: str) -> Path:
        """Where a file of the case lies."""
        return Path(self.root) / file

    def part(self, file: str) -> str:
        """What of a label file the case is: its `(?P<part>…)`, or an image's name in a COCO file."""
        return dict(self.case.parts).get(file, "")


@contextmanager
def reading(file: str) -> Iterator[None]:
    """Name the file in a CaseError that knows none."""
    try:
        yield
    except CaseError as error:
        error.file = error.file or file
        raise


def merge(read: list[Masks]) -> Masks:
    """Unite masks of several files by concept."""
    merged: Masks = {}
    for masks in read:
        for concept, mask in masks.items():
            merged[concept] = merged[concept] | mask if concept in merged else mask
    return merged


def searched(card: DatasetCard, masks: Masks) -> set[str]:
    """Concepts that were searched for in all of a case: the card's, and those that its truth marks anywhere."""
    return set(card.searched) | {concept for concept, mask in masks.items() if mask.any()}


def case_columns(record: dict[str, Any], masks: Masks, others: dict[str, Masks], samples: int) -> dict[str, Any]:
    """The columns of `CASES_SCHEMA` that are not geometry. Counts are voxels on the original grid."""
    voxels = {concept: int(np.count_nonzero(mask)) for concept, mask in sorted(masks.items())}
    agreement = {
        name: {concept: dice(mask, masks[concept]) for concept, mask in sorted(found.items()) if concept in masks}
        for name, found in others.items()
    }
    return {
        "intensity": json.dumps(record, sort_keys=True),
        "source_voxels": json.dumps(voxels, sort_keys=True),
        "agreement": json.dumps(agreement, sort_keys=True) if agreement else None,
        "samples": samples,
    }
