"""PAPILA: fundus photographs of both eyes with optic disc and cup, contours of two experts as text.

Source doi:10.6084/m9.figshare.14798004, doi:10.1038/s41597-022-01388-1. The first expert is the truth, the second
gives the agreement. Right and left eye of a patient (RET002OD, RET002OS) are one group.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import DatasetCard, Layout, Licence, Polygons, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="PAPILA",
    title="PAPILA optic disc and cup",
    modality="fundus photography",
    licence=Licence("not checked"),
    citation="Kovalyk et al., PAPILA: Dataset with fundus images and clinical data of both eyes, Sci Data 9 (2022) 291",
    doi="10.1038/s41597-022-01388-1",
    homepage="https://figshare.com/articles/dataset/PAPILA/14798004",
    layout_checked="torch-em 6f71247c, medical/papila.py",
    layouts=(
        Layout(
            image=r"(.*/)?FundusImages/(?P<case>RET\d+O[DS])\.jpg",
            label=r"(.*/)?ExpertsSegmentations/Contours/(?P<case>RET\d+O[DS])_(?P<part>disc|cup)_exp1\.txt",
            readings={
                "exp2": r"(.*/)?ExpertsSegmentations/Contours/(?P<case>RET\d+O[DS])_(?P<part>disc|cup)_exp2\.txt"
            },
        ),
    ),
    labels=Polygons({"disc": "optic disc", "cup": "optic cup"}),
    searched=("optic cup", "optic disc"),
    annotator="exp1",
    group=r"^RET(\d+)O[DS]$",
    not_data={
        r"(.*/)?(ClinicalData|HelpCode)/.*": "clinical data and the authors' code",
        r"(.*/)?ExpertsSegmentations/ImagesWithContours/.*": "pictures of the same contours",
    },
)


def cases(root: Path) -> Iterator[RawCase]:
    """Photographs with the contours of the first expert; the second is a reading."""
    return find_cases(CARD, root)
