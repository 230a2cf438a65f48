"""Chest Xray Masks and Labels: the Montgomery and Shenzhen sets with lung masks, the copy on Kaggle.

Source https://www.kaggle.com/datasets/nikhilpandey360/chest-xray-masks-and-labels, doi:10.1109/TMI.2013.2290491.
Masks of Shenzhen end in `_mask`, those of Montgomery do not. About a hundred X-rays have no mask and are
quarantined; `test` has none at all. One X-ray a patient.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import Binary, DatasetCard, Layout, Licence, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="ChestXrayMasks",
    title="Chest Xray Masks and Labels",
    modality="X-ray",
    licence=Licence("U.S. National Library of Medicine, citation required; further terms not stated"),
    citation="Jaeger et al., IEEE Trans Med Imaging 33 (2014) 233-245; Candemir et al., ibid. 577-590",
    doi="10.1109/TMI.2013.2284099",
    homepage="https://www.kaggle.com/datasets/nikhilpandey360/chest-xray-masks-and-labels",
    layout_checked="torch-em f5c9e4ef, medical/chest_xray_masks.py",
    layouts=(
        Layout(
            image=r"(.*/)?CXR_png/(?P<case>(CHNCXR|MCUCXR)_\d+_[01])\.png",
            label=r"(.*/)?masks/(?P<case>(CHNCXR|MCUCXR)_\d+_[01])(_mask)?\.png",
        ),
    ),
    labels=Binary("lung"),
    instances="components",
    searched=("lung",),
    annotator="radiologists of both collections",
    not_data={
        r"(.*/)?ClinicalReadings/.*": "age, sex and findings",
        r"(.*/)?test/.*": "X-rays without masks, for the copy's own test",
    },
)


def cases(root: Path) -> Iterator[RawCase]:
    """X-rays with the mask of the same name, with or without `_mask`."""
    return find_cases(CARD, root)
