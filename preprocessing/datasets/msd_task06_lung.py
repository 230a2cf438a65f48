"""Medical Segmentation Decathlon Task06: non-small-cell lung cancer in CT.

Small targets in whole chests; a lung window shows them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import DatasetCard, Intensity, RawCase
from preprocessing.datasets._msd import msd_card
from preprocessing.pairing import find_cases

CARD: DatasetCard = msd_card(
    "Task06_Lung",
    "Task06 lung",
    "CT",
    {1: "lung tumor"},
    sha256="f782cd09da9cf7a3128475d4a53650d371db10f0427aa76e166fccfcb2654161",
    intensity=Intensity("window", (-1000.0, 400.0)),
    annotator="a thoracic radiologist, Stanford (NSCLC Radiogenomics)",
    instances="components",
)


def cases(root: Path) -> Iterator[RawCase]:
    """Volumes paired with the label of the same name; orphans are cases too."""
    return find_cases(CARD, root)
