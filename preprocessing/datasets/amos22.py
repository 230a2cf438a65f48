"""AMOS22: fifteen abdominal organs in CT and MR.

Source doi:10.5281/zenodo.7155725, arXiv:2206.08023. Numbers below 500 are CT, the others MR, each with its own
intensity rule. The official parts are kept; where the test part has no labels its volumes are quarantined.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import ByValue, DatasetCard, Intensity, Layout, Licence, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="AMOS22",
    title="AMOS22 abdominal organs",
    modality="CT",
    licence=Licence("CC BY 4.0 as remembered, not checked"),
    citation="Ji et al., AMOS: A large-scale abdominal multi-organ benchmark, NeurIPS 2022",
    doi="10.5281/zenodo.7155725",
    homepage="https://zenodo.org/records/7155725",
    layout_checked="torch-em 6f71247c, medical/amos.py; the codes as remembered of the challenge's dataset.json",
    layouts=(
        Layout(
            image=r"(.*/)?images(?P<split>Tr|Va|Ts)/(?P<case>amos_0[0-4]\d\d)\.nii\.gz",
            label=r"(.*/)?labels(?P<split>Tr|Va|Ts)/(?P<case>amos_0[0-4]\d\d)\.nii\.gz",
        ),
        Layout(
            image=r"(.*/)?images(?P<split>Tr|Va|Ts)/(?P<case>amos_0[5-9]\d\d)\.nii\.gz",
            label=r"(.*/)?labels(?P<split>Tr|Va|Ts)/(?P<case>amos_0[5-9]\d\d)\.nii\.gz",
            modality="MR",
            intensity=Intensity("percentile", (0.5, 99.5)),
        ),
    ),
    labels=ByValue(
        {
            1: "spleen",
            2: "right kidney",
            3: "left kidney",
            4: "gallbladder",
            5: "esophagus",
            6: "liver",
            7: "stomach",
            8: "aorta",
            9: "inferior vena cava",
            10: "pancreas",
            11: "right adrenal gland",
            12: "left adrenal gland",
            13: "duodenum",
            14: "urinary bladder",
            15: "prostate or uterus",
        }
    ),
    intensity=Intensity("window", (-160.0, 240.0)),
    searched=(
        "aorta",
        "duodenum",
        "esophagus",
        "gallbladder",
        "inferior vena cava",
        "left adrenal gland",
        "left kidney",
        "liver",
        "pancreas",
        "prostate or uterus",
        "right adrenal gland",
        "right kidney",
        "spleen",
        "stomach",
        "urinary bladder",
    ),
    unions=("kidney", "adrenal gland"),
    annotator="five junior radiologists, checked by three senior ones",
    official_split={"Tr": "train", "Va": "val", "Ts": "test"},
    not_data={r"(.*/)?(dataset\.json|labeled_data_meta[^/]*\.csv)": "lists of the same files"},
)


def cases(root: Path) -> Iterator[RawCase]:
    """Volumes with the label of the same name; the number tells CT from MR."""
    return find_cases(CARD, root)
