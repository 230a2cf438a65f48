"""ISIC 2018 task 1: dermoscopy with the outline of one skin lesion.

Source https://challenge.isic-archive.com/data/#2018, doi:10.1038/sdata.2018.161. Many images are in ISIC 2017 too,
under the same number: one family, so that a lesion has one split in both. The official parts are kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import Binary, DatasetCard, Layout, Licence, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="ISIC2018",
    title="ISIC 2018 lesion segmentation",
    modality="dermoscopy",
    licence=Licence("CC BY-NC 4.0 as remembered, not checked", commercial="no"),
    citation="Codella et al., Skin Lesion Analysis Toward Melanoma Detection 2018, arXiv:1902.03368",
    doi="10.48550/arXiv.1902.03368",
    homepage="https://challenge.isic-archive.com/data/#2018",
    layout_checked="torch-em 6f71247c, medical/isic.py",
    layouts=(
        Layout(
            image=r"(.*/)?ISIC2018_Task1-2_(?P<split>Training|Validation|Test)_Input/(?P<case>ISIC_\d+)\.jpg",
            label=r"(.*/)?ISIC2018_Task1_(?P<split>Training|Validation|Test)_GroundTruth/(?P<case>ISIC_\d+)_segmentation\.png",
        ),
    ),
    labels=Binary("skin lesion"),
    searched=("skin lesion",),
    annotator="expert clinicians, partly from an algorithm that they accepted or corrected",
    official_split={"Training": "train", "Validation": "val", "Test": "test"},
    not_data={r"(.*/)?ATTRIBUTION\.txt": "a text about the dataset"},
    family="ISIC2017",
)


def cases(root: Path) -> Iterator[RawCase]:
    """Images with the mask of the same number."""
    return find_cases(CARD, root)
