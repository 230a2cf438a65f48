"""Medical Segmentation Decathlon Task03: liver and liver tumours in portal-venous CT (LiTS).

Code 1 is liver without its tumours, code 2 the tumours.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import DatasetCard, Intensity, RawCase
from preprocessing.datasets._msd import msd_card
from preprocessing.pairing import find_cases

CARD: DatasetCard = msd_card(
    "Task03_Liver",
    "Task03 liver",
    "CT",
    {1: "liver", 2: "liver tumor"},
    sha256="4007d9db1acda850d57a6ceb2b3998b7a0d43f8ad5a3f740dc38bc0cb8b7a2c5",
    intensity=Intensity("window", (-160.0, 240.0)),
    annotator="radiologists of seven hospitals (LiTS)",
    instances="components",
)


def cases(root: Path) -> Iterator[RawCase]:
    """Volumes paired with the label of the same name; orphans are cases too."""
    return find_cases(CARD, root)
