"""ISIC 2017: dermoscopy with the outline of one skin lesion.

Source https://challenge.isic-archive.com/data/#2017, CC0 1.0, arXiv:1710.05006. Large JPEG images, kept
as they are. Reads the mirror's example folders and the official Training/Validation/Test_v2 folders,
whose test part stays test. Patients are not in the names.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import Binary, DatasetCard, Layout, Licence, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="ISIC2017",
    title="ISIC 2017 lesion segmentation",
    modality="dermoscopy",
    licence=Licence("CC0 1.0", spdx="CC0-1.0", redistribution="yes", commercial="yes"),
    citation="Codella et al., Skin Lesion Analysis Toward Melanoma Detection, ISBI 2018",
    doi="10.1109/ISBI.2018.8363547",
    homepage="https://challenge.isic-archive.com/data/#2017",
    layout_checked="the files themselves; the challenge's data page",
    layouts=(
        Layout(
            image=r"example_image/(?P<case>ISIC_\d+)\.jpg",
            label=r"example_segmentation/(?P<case>ISIC_\d+)_segmentation\.png",
        ),
        Layout(
            image=r"ISIC-2017_(?P<split>Training|Validation|Test_v2)_Data/(?P<case>ISIC_\d+)\.jpg",
            label=r"ISIC-2017_(?P<split>Training|Validation|Test_v2)_Part1_GroundTruth/(?P<case>ISIC_\d+)_segmentation\.png",
        ),
    ),
    labels=Binary("skin lesion"),
    searched=("skin lesion",),
    annotator="expert clinicians, partly from an algorithm that they accepted or corrected",
    official_split={"Training": "train", "Validation": "val", "Test_v2": "test"},
    not_data={
        r"(.*/)?ISIC_\d+_superpixels\.png": "superpixels of the feature task",
        r"(.*/)?ISIC-2017_[^/]*metadata\.csv": "age and sex, not used",
    },
)


def cases(root: Path) -> Iterator[RawCase]:
    """Images paired with `<name>_segmentation.png`."""
    return find_cases(CARD, root)
