"""CT2USforKidneySeg: ultrasound-like pictures made from CT by a network, with the kidney's mask.

Source https://www.kaggle.com/datasets/siatsyx/ct2usforkidneyseg, doi:10.1016/j.ultras.2022.106706. No real
ultrasound: synthetic. Masks are near-binary grey. The CT of a slice cannot be told from its name for certain.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import Binary, DatasetCard, Layout, Licence, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="CT2USforKidneySeg",
    title="CT2US for kidney segmentation (synthetic)",
    modality="ultrasound",
    licence=Licence(
        "GPL 2 as its Kaggle page is quoted", spdx="GPL-2.0-only", redistribution="yes", commercial="unknown"
    ),
    citation="Song et al., CT2US: Cross-modal transfer learning for kidney segmentation, Ultrasonics 122 (2022) 106706",
    doi="10.1016/j.ultras.2022.106706",
    homepage="https://www.kaggle.com/datasets/siatsyx/ct2usforkidneyseg",
    layout_checked="torch-em 3db1c5ef, medical/ct2us_kidney.py for the folders; equal names as remembered",
    layouts=(
        Layout(
            image=r"(.*/)?slice/(?P<case>[^/]+)\.png",
            label=r"(.*/)?mask/(?P<case>[^/]+)\.png",
        ),
    ),
    labels=Binary("kidney", max_between=0.1),
    searched=("kidney",),
    annotator="masks of the CT, carried over",
)


def cases(root: Path) -> Iterator[RawCase]:
    """Pictures with the mask of the same name."""
    return find_cases(CARD, root)
