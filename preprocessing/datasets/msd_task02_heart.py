"""Medical Segmentation Decathlon Task02: the left atrium in MR of the whole heart.

Twenty labelled volumes of King's College London, one cardiac phase each.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import DatasetCard, Intensity, RawCase
from preprocessing.datasets._msd import msd_card
from preprocessing.pairing import find_cases

CARD: DatasetCard = msd_card(
    "Task02_Heart",
    "Task02 heart",
    "MR",
    {1: "left atrium"},
    sha256="4277dc6dfe100142aa8060e895f6ff0f81c5b733703ea250bd294df8f820bcba",
    intensity=Intensity("percentile", (0.5, 99.5)),
    annotator="an expert, King's College London",
)


def cases(root: Path) -> Iterator[RawCase]:
    """Volumes paired with the label of the same name; orphans are cases too."""
    return find_cases(CARD, root)
