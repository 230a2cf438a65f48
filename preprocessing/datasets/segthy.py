"""SegThy: 3D ultrasound and MRI of the neck with thyroid, carotid arteries and jugular veins.

Source https://www.cs.cit.tum.de/camp/publications/segthy-dataset, doi:10.1371/journal.pone.0268550. MRI has the
thyroid alone in one folder and all three in another; both are parts of one truth. 2 and 4 are the carotid
arteries, 3 and 5 the jugular veins. A volunteer, whose number begins each name, is one group in both.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import ByValue, DatasetCard, Intensity, Layout, Licence, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="SegThy",
    title="SegThy thyroid, carotid and jugular",
    modality="ultrasound",
    licence=Licence("research, citation required; not checked further"),
    citation="Kronke et al., Tracked 3D ultrasound and thyroid segmentation, PLoS ONE 17 (2022) e0268550",
    doi="10.1371/journal.pone.0268550",
    homepage="https://www.cs.cit.tum.de/camp/publications/segthy-dataset/",
    layout_checked="torch-em 6f71247c, medical/segthy.py",
    layouts=(
        Layout(
            image=r"(.*/)?(?P<within>US)_volunteer_dataset/ground_truth_data/US/(?P<case>\d+[^/]*?)_US\.nii(\.gz)?",
            label=r"(.*/)?(?P<within>US)_volunteer_dataset/ground_truth_data/US_thyroid_label/(?P<case>\d+[^/]*?)\.nii(\.gz)?",
        ),
        Layout(
            image=r"(.*/)?(?P<within>MRI)_volunteer_dataset/MRI/(?P<case>\d+)[^/]*\.nii\.gz",
            label=r"(.*/)?(?P<within>MRI)_volunteer_dataset/MRI_thyroid(\+jugular\+carotid)?_label/(?P<case>\d+)[^/]*\.nii\.gz",
            modality="MR",
        ),
    ),
    labels=ByValue(
        {
            1: "thyroid gland",
            2: "common carotid artery",
            3: "jugular vein",
            4: "common carotid artery",
            5: "jugular vein",
        }
    ),
    intensity=Intensity("percentile", (0.5, 99.5)),
    instances="components",
    annotator="a medical student, checked by an expert",
    group=r"^(?:US|MRI)_(\d+)",
    not_data={r"(.*/)?US_volunteer_dataset/(?!ground_truth_data/(US|US_thyroid_label)/).*": "sweeps without masks"},
)


def cases(root: Path) -> Iterator[RawCase]:
    """Volumes of both modalities with their label volumes."""
    return find_cases(CARD, root)
