"""TotalSegmentator v2: 117 structures in CT of the whole body, one binary file a structure.

Source doi:10.5281/zenodo.10047292, CC BY 4.0. The official split is in meta.csv. Labels were made with a network
in the loop. Three windows (lung, soft tissue, bone) are the channels. Paired structures are united too.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import DatasetCard, Intensity, Layout, Licence, RawCase
from preprocessing.datasets._totalsegmentator import CT, CT_UNIONS, by_file, cases_with_splits, concept_of

CARD = DatasetCard(
    name="TotalSegmentator_v2",
    title="TotalSegmentator CT, version 2",
    modality="CT",
    licence=Licence("CC BY 4.0", spdx="CC-BY-4.0", redistribution="yes", commercial="yes"),
    citation="Wasserthal et al., TotalSegmentator, Radiol Artif Intell 5 (2023) e230024",
    doi="10.1148/ryai.230024",
    homepage="https://zenodo.org/records/10047292",
    layout_checked="torch-em 910b7881, medical/totalsegmentator.py; names in the tool's map_to_binary.py",
    layouts=(
        Layout(
            image=r"(.*/)?(?P<case>s\d+)/ct\.nii\.gz",
            label=r"(.*/)?(?P<case>s\d+)/segmentations/(?P<part>[^/]+)\.nii\.gz",
        ),
    ),
    labels=by_file(CT),
    intensity=Intensity("window", windows=((-1000.0, 400.0), (-160.0, 240.0), (-500.0, 1300.0))),
    searched=tuple(concept_of(structure) for structure in CT),
    unions=CT_UNIONS,
    annotator="a network in the loop, corrected by physicians",
    official_split={"train": "train", "val": "val", "test": "test"},
    not_data={r"(.*/)?meta\.csv": "age, sex and split of each case: the split is read"},
)


def cases(root: Path) -> Iterator[RawCase]:
    """A volume with one mask file a structure, and the split of meta.csv."""
    return cases_with_splits(CARD, root)
