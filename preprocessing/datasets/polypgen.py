"""PolypGen: colonoscopy images of six centres with polyp masks.

Source doi:10.7303/syn26376615, doi:10.1038/s41597-023-01981-y. Masks are JPEG, with `_mask` at the end, in some
centres single-channel. Patients are not in the names of all centres: a centre is one group, so that no
patient can be on both sides, and whole centres are held out. Sequences without polyps are not read.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import Binary, DatasetCard, Layout, Licence, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="PolypGen",
    title="PolypGen multi-centre colonoscopy",
    modality="endoscopy",
    licence=Licence("CC BY 4.0 as remembered, not checked"),
    citation="Ali et al., A multi-centre polyp detection and segmentation dataset, Sci Data 10 (2023) 75",
    doi="10.1038/s41597-023-01981-y",
    homepage="https://www.synapse.org/Synapse:syn26376615",
    layout_checked="torch-em fa5264b8, medical/polypgen.py, whose author looked into the archive",
    layouts=(
        Layout(
            image=r"(.*/)?(?P<within>data_C[1-6])/images_C[1-6]/(?P<case>[^/]+)\.jpg",
            label=r"(.*/)?(?P<within>data_C[1-6])/masks_C[1-6]/(?P<case>[^/]+)_mask\.jpg",
        ),
    ),
    labels=Binary("polyp"),
    instances="components",
    searched=("polyp",),
    annotator="expert gastroenterologists of each centre",
    group=r"^(data_C[1-6])_",
    not_data={
        r"(.*/)?bbox(_image)?_C[1-6]/.*": "boxes of the same masks",
        r"(.*/)?sequenceData/.*": "video sequences of the same centres",
    },
)


def cases(root: Path) -> Iterator[RawCase]:
    """Images of a centre with the mask of the same name."""
    return find_cases(CARD, root)
