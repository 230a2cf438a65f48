"""SAM-Med2D's demo: slices of AMOS and TotalSegmentator, a mask file an object, named by structure.

Source https://github.com/OpenGVLab/SAM-Med2D (bfd2b93), arXiv:2308.16184; slices CC BY 4.0. `_000`, `_001` number
the objects of a structure. Only what has a mask was searched for; one slice has none. The volume is the group.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import DatasetCard, Layout, Licence, RawCase
from preprocessing.datasets._totalsegmentator import CT, by_file
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="SAM-Med2D_demo",
    title="SAM-Med2D demo slices",
    modality="CT",
    licence=Licence(
        "repository Apache-2.0, slices CC BY 4.0", spdx="CC-BY-4.0", redistribution="yes", commercial="yes"
    ),
    citation="Cheng et al., SAM-Med2D, arXiv:2308.16184",
    doi="10.48550/arXiv.2308.16184",
    homepage="https://github.com/OpenGVLab/SAM-Med2D",
    layout_checked="the files themselves",
    layouts=(
        Layout(
            image=r"images/(?P<case>amos_0[5-9]\d\d_\d+)\.png",
            label=r"masks/(?P<case>amos_0[5-9]\d\d_\d+)_(?P<part>[^/]+)_\d{3}\.png",
            modality="MR",
        ),
        Layout(
            image=r"images/(?P<case>(amos_\d+|s\d+)_\d+)\.png",
            label=r"masks/(?P<case>(amos_\d+|s\d+)_\d+)_(?P<part>[^/]+)_\d{3}\.png",
        ),
    ),
    labels=by_file(
        (
            *CT,
            "heart_myocardium",
            "heart_atrium_left",
            "heart_atrium_right",
            "heart_ventricle_left",
            "heart_ventricle_right",
        )
    ),
    instances="files",
    annotator="of AMOS and TotalSegmentator",
    group=r"^(amos_\d+|s\d+)_",
    not_data={r"(image2label_train|label2image_test)\.json": "lists of the same files"},
)


def cases(root: Path) -> Iterator[RawCase]:
    """Slices with one mask file an object."""
    return find_cases(CARD, root)
