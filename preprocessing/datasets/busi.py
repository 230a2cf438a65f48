"""BUSI: breast ultrasound with benign and malignant tumours, coded by mask colour in this copy.

Source article doi:10.1016/j.dib.2019.104863 (CC BY 4.0); the copy is a re-hosted test split with green
benign and red malignant masks. The original names `benign (1).png` with `benign (1)_mask.png`, several
masks to an image, are read too. Patients cannot be told apart by name. Every image was read for
tumours, so the kind that is not marked is absent.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import Binary, ByColour, DatasetCard, Layout, Licence, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="BUSI",
    title="Breast Ultrasound Images",
    modality="ultrasound",
    licence=Licence("CC0 as stated for the copy; article CC BY 4.0", redistribution="yes", commercial="unknown"),
    citation="Al-Dhabyani et al., Data in Brief 28 (2020) 104863",
    doi="10.1016/j.dib.2019.104863",
    homepage="https://scholar.cu.edu.eg/?q=afahmy/pages/dataset",
    layout_checked="the files themselves; the article for the original names",
    layouts=(
        Layout(image=r"images/(?P<case>[^/]+)\.png", label=r"masks/(?P<case>[^/]+)\.png"),
        Layout(
            image=r"(.*/)?benign/(?P<case>benign \(\d+\))\.png",
            label=r"(.*/)?benign/(?P<case>benign \(\d+\))_mask(_\d+)?\.png",
            labels=Binary("benign breast tumor"),
        ),
        Layout(
            image=r"(.*/)?malignant/(?P<case>malignant \(\d+\))\.png",
            label=r"(.*/)?malignant/(?P<case>malignant \(\d+\))_mask(_\d+)?\.png",
            labels=Binary("malignant breast tumor"),
        ),
        Layout(
            image=r"(.*/)?normal/(?P<case>normal \(\d+\))\.png",
            label=r"(.*/)?normal/(?P<case>normal \(\d+\))_mask(_\d+)?\.png",
        ),
    ),
    labels=ByColour((((0, 255, 0), "benign breast tumor"), ((255, 0, 0), "malignant breast tumor")), tolerance=32),
    instances="components",
    searched=("benign breast tumor", "malignant breast tumor"),
    annotator="radiologists of Baheya Hospital, Cairo",
)


def cases(root: Path) -> Iterator[RawCase]:
    """Images paired with the mask of the same name."""
    return find_cases(CARD, root)
