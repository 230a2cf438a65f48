"""ACDC: both ventricles and the myocardium in cardiac cine MR, at end-diastole and end-systole.

Source https://humanheart-project.creatis.insa-lyon.fr/database, doi:10.1109/TMI.2018.2837502. Two frames a patient
have a truth; a patient is one group. The official testing part stays test. The whole cine is a 4D file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import ByValue, DatasetCard, Intensity, Layout, Licence, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="ACDC",
    title="Automated Cardiac Diagnosis Challenge",
    modality="MR",
    licence=Licence("CC BY-NC-SA 4.0 as remembered, not checked", commercial="no"),
    citation="Bernard et al., Deep learning techniques for cardiac MRI, IEEE Trans Med Imaging 37 (2018) 2514-2525",
    doi="10.1109/TMI.2018.2837502",
    homepage="https://www.creatis.insa-lyon.fr/Challenge/acdc/",
    layout_checked="torch-em 6f71247c, medical/acdc.py",
    layouts=(
        Layout(
            image=r"(.*/)?(?P<split>training|testing)/(?P<case>patient\d+/patient\d+_frame\d+)\.nii(\.gz)?",
            label=r"(.*/)?(?P<split>training|testing)/(?P<case>patient\d+/patient\d+_frame\d+)_gt\.nii(\.gz)?",
        ),
    ),
    labels=ByValue({1: "right ventricle blood pool", 2: "myocardium", 3: "left ventricle blood pool"}),
    intensity=Intensity("percentile", (0.5, 99.5)),
    searched=("left ventricle blood pool", "myocardium", "right ventricle blood pool"),
    annotator="two experts of the University Hospital of Dijon",
    group=r"^(patient\d+)_",
    official_split={"training": "development", "testing": "test"},
    not_data={
        r"(.*/)?patient\d+_4d\.nii(\.gz)?": "the whole cine, without labels",
        r"(.*/)?(Info\.cfg|MANDATORY_CITATION\.md)": "phase numbers, height and weight",
    },
)


def cases(root: Path) -> Iterator[RawCase]:
    """The two labelled frames of each patient."""
    return find_cases(CARD, root)
