"""Medical Segmentation Decathlon Task09: the spleen in portal-venous CT.

Forty-one labelled volumes of patients with liver metastases.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import DatasetCard, Intensity, RawCase
from preprocessing.datasets._msd import msd_card
from preprocessing.pairing import find_cases

CARD: DatasetCard = msd_card(
    "Task09_Spleen",
    "Task09 spleen",
    "CT",
    {1: "spleen"},
    sha256="dfeba347daae4fb08c38f4d243ab606b28b91b206ffc445ec55c35489fa65e60",
    intensity=Intensity("window", (-160.0, 240.0)),
    annotator="an abdominal radiologist, Memorial Sloan Kettering",
)


def cases(root: Path) -> Iterator[RawCase]:
    """Volumes paired with the label of the same name; orphans are cases too."""
    return find_cases(CARD, root)
