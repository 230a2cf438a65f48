"""Medical Segmentation Decathlon Task08: vessels and tumours of the liver in CT.

Only labelled volumes are read.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import DatasetCard, Intensity, RawCase
from preprocessing.datasets._msd import msd_card
from preprocessing.pairing import find_cases

CARD: DatasetCard = msd_card(
    "Task08_HepaticVessel",
    "Task08 hepatic vessel",
    "CT",
    {1: "hepatic vessel", 2: "liver tumor"},
    sha256="ee880799f12e3b6e1ef2f8645f6626c5b39de77a4f1eae6f496c25fbf306ba04",
    intensity=Intensity("window", (-160.0, 240.0)),
    annotator="an abdominal radiologist, Memorial Sloan Kettering",
    instances="components",
)


def cases(root: Path) -> Iterator[RawCase]:
    """Volumes paired with the label of the same name; orphans are cases too."""
    return find_cases(CARD, root)
