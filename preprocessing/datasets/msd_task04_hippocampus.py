"""Medical Segmentation Decathlon Task04: anterior and posterior hippocampus, the official archive.

The card MSD_Hippocampus_udacity reads a copy of the same volumes: one family, so that a person has one split.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import DatasetCard, Intensity, RawCase
from preprocessing.datasets._msd import msd_card
from preprocessing.pairing import find_cases

CARD: DatasetCard = msd_card(
    "Task04_Hippocampus",
    "Task04 hippocampus",
    "MR",
    {1: "anterior hippocampus", 2: "posterior hippocampus"},
    sha256="282d808a3e84e5a52f090d9dd4c0b0057b94a6bd51ad41569aef5ff303287771",
    intensity=Intensity("percentile", (0.5, 99.5)),
    annotator="one expert, Vanderbilt University Medical Center",
    family="MSD_Hippocampus_udacity",
)


def cases(root: Path) -> Iterator[RawCase]:
    """Volumes paired with the label of the same name; orphans are cases too."""
    return find_cases(CARD, root)
