"""Medical Segmentation Decathlon Task07: pancreas and its masses in portal-venous CT.

Code 1 is pancreas without the mass, code 2 the mass (cyst or tumour).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import DatasetCard, Intensity, RawCase
from preprocessing.datasets._msd import msd_card
from preprocessing.pairing import find_cases

CARD: DatasetCard = msd_card(
    "Task07_Pancreas",
    "Task07 pancreas",
    "CT",
    {1: "pancreas", 2: "pancreas tumor"},
    sha256="e40181a0229ca85c2588d6ebb90fa6674f84eb1e66f0f968cda088d011769732",
    intensity=Intensity("window", (-160.0, 240.0)),
    annotator="an abdominal radiologist, Memorial Sloan Kettering",
    instances="components",
)


def cases(root: Path) -> Iterator[RawCase]:
    """Volumes paired with the label of the same name; orphans are cases too."""
    return find_cases(CARD, root)
