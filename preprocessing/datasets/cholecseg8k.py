"""CholecSeg8k: frames of laparoscopic gallbladder removals, every pixel one of thirteen classes.

Source https://www.kaggle.com/datasets/newslab/cholecseg8k, arXiv:2012.12453. The code is the grey value of
`_watershed_mask.png` (stored as RGB, some with alpha); 50 is the black surround, 255 a thin frame. The video is
the group: neighbouring frames are nearly equal.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import ByValue, DatasetCard, Layout, Licence, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="CholecSeg8k",
    title="CholecSeg8k laparoscopic cholecystectomy",
    modality="endoscopy",
    licence=Licence("CC BY-NC-SA 4.0 as remembered, not checked", commercial="no"),
    citation="Hong et al., CholecSeg8k, arXiv:2012.12453; videos of Cholec80, Twinanda et al., IEEE TMI 36 (2017)",
    doi="10.48550/arXiv.2012.12453",
    homepage="https://www.kaggle.com/datasets/newslab/cholecseg8k",
    layout_checked="torch-em 6f71247c, medical/cholecseg8k.py",
    layouts=(
        Layout(
            image=r"(.*/)?(?P<case>video\d+_\d+/frame_\d+)_endo\.png",
            label=r"(.*/)?(?P<case>video\d+_\d+/frame_\d+)_endo_watershed_mask\.png",
        ),
    ),
    labels=ByValue(
        {
            5: "liver ligament",
            11: "abdominal wall",
            12: "fat",
            13: "intestine",
            21: "liver",
            22: "gallbladder",
            23: "connective tissue",
            24: "blood",
            25: "cystic duct",
            31: "grasper",
            32: "l-hook electrocautery",
            33: "hepatic vein",
        },
        ignore=(50, 255),
    ),
    searched=(
        "abdominal wall",
        "blood",
        "connective tissue",
        "cystic duct",
        "fat",
        "gallbladder",
        "grasper",
        "hepatic vein",
        "intestine",
        "l-hook electrocautery",
        "liver",
        "liver ligament",
    ),
    annotator="annotators of National Taiwan University",
    group=r"^(video\d+)_",
    not_data={r"(.*/)?frame_\d+_endo(_color)?_mask\.png": "the same classes for the eye"},
)


def cases(root: Path) -> Iterator[RawCase]:
    """Frames with the watershed mask of the same number."""
    return find_cases(CARD, root)
