"""nnU-Net v2 raw folder: Dataset004_Hippocampus, as nnU-Net's own converter makes it of the Decathlon's task.

Layout of https://github.com/MIC-DKFZ/nnUNet, documentation/dataset_format.md: `imagesTr/<case>_0000.nii.gz` with
one file a channel, `labelsTr/<case>.nii.gz`. The first channel is read. Of the same people as
MSD_Hippocampus_udacity: one family. A raw folder of another task needs a card like this with its labels.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import ByValue, DatasetCard, Intensity, Layout, Licence, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="nnUNet_Dataset004_Hippocampus",
    title="MSD hippocampus as an nnU-Net v2 raw folder",
    modality="MR",
    licence=Licence("CC BY-SA 4.0", spdx="CC-BY-SA-4.0", redistribution="yes", commercial="yes"),
    citation="Isensee et al., nnU-Net, Nat Methods 18 (2021) 203-211; Antonelli et al., Nat Commun 13 (2022) 4128",
    doi="10.1038/s41592-020-01008-z",
    homepage="https://github.com/MIC-DKFZ/nnUNet",
    layout_checked="a stored copy of documentation/dataset_format.md",
    layouts=(
        Layout(
            image=r"(Dataset004_[^/]+/)?imagesTr/(?P<case>[^/]+)_0000\.nii\.gz",
            label=r"(Dataset004_[^/]+/)?labelsTr/(?P<case>[^/]+)\.nii\.gz",
        ),
        Layout(
            image=r"(Dataset004_[^/]+/)?images(?P<split>Ts)/(?P<case>[^/]+)_0000\.nii\.gz",
            label=r"(Dataset004_[^/]+/)?labels(?P<split>Ts)/(?P<case>[^/]+)\.nii\.gz",
        ),
    ),
    labels=ByValue({1: "anterior hippocampus", 2: "posterior hippocampus"}),
    intensity=Intensity("percentile", (0.5, 99.5)),
    searched=("anterior hippocampus", "posterior hippocampus"),
    annotator="one expert, Vanderbilt University Medical Center",
    official_split={"Ts": "test"},
    not_data={
        r"(.*/)?(dataset|splits_final|dataset_fingerprint)\.json": "lists of the same files",
        r"(.*/)?images(Tr|Ts)/[^/]+_000[1-9]\.nii\.gz": "further channels of the same cases",
    },
    family="MSD_Hippocampus_udacity",
)


def cases(root: Path) -> Iterator[RawCase]:
    """The first channel of each case with its label."""
    return find_cases(CARD, root)
