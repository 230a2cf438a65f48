"""Medical Segmentation Decathlon Task10: primary colon cancer in portal-venous CT.

Small targets in whole abdomens.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import DatasetCard, Intensity, RawCase
from preprocessing.datasets._msd import msd_card
from preprocessing.pairing import find_cases

CARD: DatasetCard = msd_card(
    "Task10_Colon",
    "Task10 colon",
    "CT",
    {1: "colon cancer"},
    sha256="a26bfd23faf2de703f5a51a262cd4e2b9774c47e7fb86f0e0a854f8446ec2325",
    intensity=Intensity("window", (-160.0, 240.0)),
    annotator="an abdominal radiologist, Memorial Sloan Kettering",
    instances="components",
)


def cases(root: Path) -> Iterator[RawCase]:
    """Volumes paired with the label of the same name; orphans are cases too."""
    return find_cases(CARD, root)
