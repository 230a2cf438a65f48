"""Medical Segmentation Decathlon Task05: zones of the prostate in MR.

The image has two frames, T2 and ADC; T2, on which the zones were drawn, is taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import DatasetCard, Intensity, RawCase
from preprocessing.datasets._msd import msd_card
from preprocessing.pairing import find_cases

CARD: DatasetCard = msd_card(
    "Task05_Prostate",
    "Task05 prostate",
    "MR",
    {1: "prostate peripheral zone", 2: "prostate transition zone"},
    sha256="8cbbd7147691109b880ff8774eb6ab26704b1be0935482e7996a36a4ed31ec79",
    intensity=Intensity("percentile", (0.5, 99.5)),
    annotator="an expert, Radboud University Medical Center",
    frame=0,
)


def cases(root: Path) -> Iterator[RawCase]:
    """Volumes paired with the label of the same name; orphans are cases too."""
    return find_cases(CARD, root)
