"""Medical Segmentation Decathlon Task01: gliomas in four MR sequences (BraTS 2016 and 2017).

The image has four frames: FLAIR, T1, T1 with gadolinium, T2. FLAIR, which shows the whole tumour, is taken; what
enhances is seen in another frame and is still the truth. The three codes together are the tumour.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import DatasetCard, Intensity, RawCase
from preprocessing.datasets._msd import msd_card
from preprocessing.pairing import find_cases

CARD: DatasetCard = msd_card(
    "Task01_BrainTumour",
    "Task01 brain tumour",
    "MR",
    {1: "peritumoral edema", 2: "non-enhancing tumor core", 3: "enhancing tumor"},
    sha256="d423911308d2ae5396d9c6bf4fad2b68cfde2dd09044269da9c0d639c22753c4",
    intensity=Intensity("percentile", (0.5, 99.5)),
    annotator="four raters of BraTS, approved by neuroradiologists",
    frame=0,
    unions=("glioma",),
)


def cases(root: Path) -> Iterator[RawCase]:
    """Volumes paired with the label of the same name; orphans are cases too."""
    return find_cases(CARD, root)
