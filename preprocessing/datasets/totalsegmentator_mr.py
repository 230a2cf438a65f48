"""TotalSegmentator MR: fifty structures in MR of any sequence, one binary file a structure.

Source doi:10.5281/zenodo.11367004, doi:10.1148/radiol.241613. The layout is that of the CT set, with
mri.nii.gz. Vertebrae are one structure here, and lungs have no lobes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import DatasetCard, Intensity, Layout, Licence, RawCase
from preprocessing.datasets._totalsegmentator import MR, MR_UNIONS, by_file, cases_with_splits, concept_of

CARD = DatasetCard(
    name="TotalSegmentator_MR",
    title="TotalSegmentator MR",
    modality="MR",
    licence=Licence("not checked"),
    citation="D'Antonoli et al., TotalSegmentator MRI, Radiology 314 (2025) e241613",
    doi="10.1148/radiol.241613",
    homepage="https://zenodo.org/records/11367005",
    layout_checked="names in the tool's map_to_binary.py; the files as those of the CT set: remembered, not checked",
    layouts=(
        Layout(
            image=r"(.*/)?(?P<case>s\d+)/mri\.nii\.gz",
            label=r"(.*/)?(?P<case>s\d+)/segmentations/(?P<part>[^/]+)\.nii\.gz",
        ),
    ),
    labels=by_file(MR),
    intensity=Intensity("percentile", (0.5, 99.5)),
    searched=tuple(concept_of(structure) for structure in MR),
    unions=MR_UNIONS,
    annotator="a network in the loop, corrected by physicians",
    official_split={"train": "train", "val": "val", "test": "test"},
    not_data={r"(.*/)?meta\.csv": "age, sex and split of each case: the split is read"},
)


def cases(root: Path) -> Iterator[RawCase]:
    """A volume with one mask file a structure, and the split of meta.csv."""
    return cases_with_splits(CARD, root)
