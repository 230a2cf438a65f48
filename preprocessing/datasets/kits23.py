"""KiTS23: kidneys, their tumours and cysts in CT.

Source https://github.com/neheller/kits23, doi:10.1016/j.media.2020.101821 (KiTS19). A folder a case; 1 is kidney
without tumour and cyst. `instances/` holds the single annotations before they were merged.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import ByValue, DatasetCard, Intensity, Layout, Licence, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="KiTS23",
    title="KiTS23 kidney tumours",
    modality="CT",
    licence=Licence("CC BY-NC-SA 4.0 as remembered, not checked", commercial="no"),
    citation="Heller et al., The KiTS21 challenge, arXiv:2307.01984",
    doi="10.48550/arXiv.2307.01984",
    homepage="https://kits-challenge.org/kits23/",
    layout_checked="torch-em 6f71247c, medical/kits.py; the repository's file list",
    layouts=(
        Layout(
            image=r"(.*/)?(?P<case>case_\d+)/imaging\.nii\.gz",
            label=r"(.*/)?(?P<case>case_\d+)/segmentation\.nii\.gz",
        ),
    ),
    labels=ByValue({1: "kidney", 2: "kidney tumor", 3: "kidney cyst"}),
    intensity=Intensity("window", (-160.0, 240.0)),
    instances="components",
    searched=("kidney", "kidney cyst", "kidney tumor"),
    annotator="laypeople and medical students, checked by experts",
    not_data={
        r"(.*/)?case_\d+/instances/.*": "single annotations before they were merged",
        r"(.*/)?kits23\.json": "clinical data of the cases",
    },
)


def cases(root: Path) -> Iterator[RawCase]:
    """A folder a case: volume and merged segmentation."""
    return find_cases(CARD, root)
