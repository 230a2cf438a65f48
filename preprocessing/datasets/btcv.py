"""BTCV abdomen: thirteen organs in portal-venous CT, `img0001.nii.gz` with `label0001.nii.gz`.

Source https://www.synapse.org/Synapse:syn3193805, after registration. Only the training part has labels. Left and
right kidney and adrenal gland are codes of their own; together they are kidney and adrenal gland.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import ByValue, DatasetCard, Intensity, Layout, Licence, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="BTCV",
    title="BTCV abdomen",
    modality="CT",
    licence=Licence("Synapse registration; listed as CC BY 4.0 by later tables", redistribution="unknown"),
    citation="Landman et al., MICCAI Multi-Atlas Labeling Beyond the Cranial Vault, 2015",
    doi="10.7303/syn3193805",
    homepage="https://www.synapse.org/Synapse:syn3193805",
    layout_checked="torch-em 6f71247c, medical/btcv.py",
    layouts=(
        Layout(
            image=r"(.*/)?Training/img/img(?P<case>\d+)\.nii\.gz",
            label=r"(.*/)?Training/label/label(?P<case>\d+)\.nii\.gz",
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
            10: "portal and splenic vein",
            11: "pancreas",
            12: "right adrenal gland",
            13: "left adrenal gland",
        }
    ),
    intensity=Intensity("window", (-160.0, 240.0)),
    searched=(
        "aorta",
        "esophagus",
        "gallbladder",
        "inferior vena cava",
        "left adrenal gland",
        "left kidney",
        "liver",
        "pancreas",
        "portal and splenic vein",
        "right adrenal gland",
        "right kidney",
        "spleen",
        "stomach",
    ),
    unions=("kidney", "adrenal gland"),
    annotator="two annotators, checked by a radiologist, Vanderbilt University",
    not_data={r"(.*/)?Testing/.*": "test volumes of the challenge, without labels"},
    family="BTCV",
)


def cases(root: Path) -> Iterator[RawCase]:
    """Volumes with the label of the same number."""
    return find_cases(CARD, root)
