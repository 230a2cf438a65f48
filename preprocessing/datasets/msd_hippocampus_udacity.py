"""Medical Segmentation Decathlon Task04: anterior and posterior hippocampus in T1 MRI, Udacity's copy.

Source https://medicaldecathlon.com, doi:10.1038/s41467-022-30695-9, CC BY-SA 4.0. Tiny cropped volumes
of 1 mm. The mirror says images/labels, the official archive imagesTr/labelsTr. The copy lacks some
images and one label, and carries one DICOM series without labels: those cases are quarantined.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import ByValue, DatasetCard, Intensity, Layout, Licence, Official, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="MSD_Hippocampus_udacity",
    title="MSD Task04 Hippocampus",
    modality="MR",
    licence=Licence("CC BY-SA 4.0", spdx="CC-BY-SA-4.0", redistribution="yes", commercial="yes"),
    citation="Antonelli et al., The Medical Segmentation Decathlon, Nat Commun 13 (2022) 4128",
    doi="10.1038/s41467-022-30695-9",
    homepage="http://medicaldecathlon.com",
    layout_checked="the files themselves; dataset.json of Task04_Hippocampus.tar names imagesTr and labelsTr",
    layouts=(
        Layout(
            image=r"TrainingSet/images/(?P<case>[^/]+)\.nii(\.gz)?",
            label=r"TrainingSet/labels/(?P<case>[^/]+)\.nii(\.gz)?",
        ),
        Layout(
            image=r"(Task04_Hippocampus/)?imagesTr/(?P<case>[^/]+)\.nii\.gz",
            label=r"(Task04_Hippocampus/)?labelsTr/(?P<case>[^/]+)\.nii\.gz",
        ),
        Layout(image=r"TestVolumes/(?P<case>[^/]+/[^/]+)/[^/]+\.dcm"),
    ),
    labels=ByValue({1: "anterior hippocampus", 2: "posterior hippocampus"}),
    intensity=Intensity("percentile", (0.5, 99.5)),
    searched=("anterior hippocampus", "posterior hippocampus"),
    annotator="one expert, Vanderbilt University Medical Center",
    not_data={
        r"(.*/)?imagesTs/.*": "test images of the challenge, their labels are not public",
        r"(.*/)?dataset\.json": "a list of the same files",
    },
    official=Official(
        url="https://msd-for-monai.s3-us-west-2.amazonaws.com/Task04_Hippocampus.tar",
        sha256=None,
        bytes=0,
        unpack="tar",
        root="Task04_Hippocampus",
    ),
)


def cases(root: Path) -> Iterator[RawCase]:
    """Volumes paired with the label of the same name; orphans are cases too."""
    return find_cases(CARD, root)
