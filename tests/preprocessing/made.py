"""Small datasets made on the spot, and one case of them through the same code as a build."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from infra.storage import sha256_file
from preprocessing.cards import Binary, DatasetCard, Intensity, LabelRule, Layout, Licence
from preprocessing.harmonize.case import CaseItem, CaseResult, process
from preprocessing.harmonize.payload import decode
from preprocessing.pairing import find_cases
from preprocessing.schema import rle

CARD = DatasetCard(
    name="made",
    title="Made",
    modality="microscopy",
    licence=Licence("none"),
    citation="nobody",
    homepage="https://example.org",
    layout_checked="made here",
    layouts=(Layout(image=r"images/(?P<case>\w+)\.\w+", label=r"masks/(?P<case>\w+)\.\w+"),),
    labels=Binary("polyp"),
)


def card_of(labels: LabelRule, *layouts: Layout, **said: Any) -> DatasetCard:
    """A card with this rule and these layouts (default: images/ and masks/)."""
    return replace(CARD, labels=labels, layouts=layouts or CARD.layouts, **said)


def read(card: DatasetCard, root: Path) -> dict[str, CaseResult]:
    """Every case below `root`, by case id, as a build would read it."""
    results = {}
    for case in find_cases(card, root):
        item = CaseItem(
            card=card,
            case=case,
            root=str(root),
            sha256={file: sha256_file(root / file) for file in case.files},
            orientation="LPS",
            min_object_area_px=1,
            shown_id=case.case_id,
            shown_files={file: file for file in case.files},
        )
        results[case.case_id] = process(item)
    return results


def only(results: dict[str, CaseResult]) -> CaseResult:
    """The one case, which was kept."""
    (result,) = results.values()
    assert result.refusal is None, result.refusal
    return result


def pixels(row: dict[str, Any]) -> np.ndarray:
    return decode(row["image"])


def masks(row: dict[str, Any], concept: str) -> list[np.ndarray]:
    """Instance masks of a concept in a row."""
    found = [each for each in row["objects"] if each["concept"] == concept]
    assert [each["instance"] for each in found] == list(range(1, len(found) + 1))
    decoded = [rle.decode(each["rle"], row["height"], row["width"]) for each in found]
    for each, mask in zip(found, decoded, strict=True):
        assert each["area"] == int(mask.sum())
        assert tuple(each["bbox_xyxy"]) == rle.bbox_xyxy(mask)
    return decoded


def mask(row: dict[str, Any], concept: str) -> np.ndarray:
    """The union of the instances of a concept."""
    return np.any([np.zeros((row["height"], row["width"]), dtype=bool), *masks(row, concept)], axis=0)


AS_IS = Intensity()
WIDE = Intensity("window", (0, 65535))
