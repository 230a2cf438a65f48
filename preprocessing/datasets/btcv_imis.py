"""BTCV slices of IMIS-Bench: 8-bit PNG with a sparse NPZ of thirteen channels, one an organ.

Source https://github.com/uni-medical/IMIS-Bench (dataset/BTCV); channel c is organ c + 1 of dataset.json. The true
shape of the array is only in the file's name. The case number is the group. Two slices have no label.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import ByChannel, DatasetCard, Layout, Licence, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="BTCV_IMIS",
    title="BTCV slices of IMIS-Bench",
    modality="CT",
    licence=Licence("Synapse registration for the original; the copy states none: test only", commercial="unknown"),
    citation="Landman et al., BTCV, 2015, doi:10.7303/syn3193805; Cheng et al., IMIS-Bench, arXiv:2411.12814",
    doi="10.7303/syn3193805",
    homepage="https://github.com/uni-medical/IMIS-Bench",
    layout_checked="the files themselves; the copy's dataset.json",
    layouts=(
        Layout(
            image=r"image/(?P<case>ABD_\d+_\d+)\.png",
            label=r"label/x___(?P<case>ABD_\d+_\d+)\.\([^/]+\)\.npz",
            label_axes="cyx",
        ),
    ),
    labels=ByChannel(
        {
            0: "spleen",
            1: "right kidney",
            2: "left kidney",
            3: "gallbladder",
            4: "esophagus",
            5: "liver",
            6: "stomach",
            7: "aorta",
            8: "inferior vena cava",
            9: "portal and splenic vein",
            10: "pancreas",
            11: "right adrenal gland",
            12: "left adrenal gland",
        }
    ),
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
    group=r"^ABD_(\d+)_",
    not_data={r"dataset\.json": "the names of the channels, and a list of files"},
)


def cases(root: Path) -> Iterator[RawCase]:
    """Slices with the NPZ of the same name; the case number is the group."""
    return find_cases(CARD, root)
