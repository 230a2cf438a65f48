"""Test data of elastix: a small lung CT in MetaImage with masks of another grid.

Source https://github.com/SuperElastix/elastix (0c0b19f), Apache-2.0, doi:10.1109/TMI.2009.2035616. The mask has the
full resolution and the CT every other voxel of it. Mask and segmentation (value 137) of the follow-up have no CT.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import ByValue, DatasetCard, Intensity, Layout, Licence, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="elastix_lung_mha",
    title="elastix lung CT",
    modality="CT",
    licence=Licence("Apache-2.0", spdx="Apache-2.0", redistribution="yes", commercial="yes"),
    citation="Klein et al., elastix, IEEE Trans Med Imaging 29 (2010) 196-205",
    doi="10.1109/TMI.2009.2035616",
    homepage="https://github.com/SuperElastix/elastix",
    layout_checked="the files themselves",
    layouts=(
        Layout(
            image=r"(?P<case>3DCT_lung_[a-z]+)_small\.mha",
            label=r"(?P<case>3DCT_lung_[a-z]+)_(mask|segmentation)\.mha",
        ),
    ),
    labels=ByValue({1: "lung", 137: "lung"}),
    label_grid="own",
    intensity=Intensity("window", (-1000.0, 400.0)),
    annotator="of the authors of elastix",
    group=r"^(3DCT_lung)_",
)


def cases(root: Path) -> Iterator[RawCase]:
    """The CT and the masks of the same visit; one person."""
    return find_cases(CARD, root)
