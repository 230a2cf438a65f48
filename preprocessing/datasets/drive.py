"""DRIVE: retinal vessels in fundus photographs; TIFF with GIF masks.

Source https://drive.grand-challenge.org, doi:10.1109/TMI.2004.825627. The first observer is the truth, the second
gives the agreement where it is there. `mask/` is the field of view. The official test part stays test.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import ByFile, DatasetCard, Layout, Licence, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="DRIVE",
    title="DRIVE retinal vessels",
    modality="fundus photography",
    licence=Licence("research and education, registration; not checked further", commercial="no"),
    citation="Staal et al., Ridge-based vessel segmentation, IEEE Trans Med Imaging 23 (2004) 501-509",
    doi="10.1109/TMI.2004.825627",
    homepage="https://drive.grand-challenge.org/",
    layout_checked="torch-em 6f71247c, medical/drive.py; the second observer as remembered",
    layouts=(
        Layout(
            image=r"(.*/)?(?P<split>training|test)/images/(?P<case>\d+)_(training|test)\.tif",
            label=r"(.*/)?(?P<split>training|test)/1st_manual/(?P<case>\d+)_manual1\.gif",
            readings={"2nd_manual": r"(.*/)?(training|test)/2nd_manual/(?P<case>\d+)_manual2\.gif"},
        ),
    ),
    labels=ByFile({"": "retinal vessel"}),
    searched=("retinal vessel",),
    annotator="1st_manual",
    official_split={"training": "development", "test": "test"},
    not_data={r"(.*/)?mask/[^/]+\.gif": "the field of view, no anatomy"},
)


def cases(root: Path) -> Iterator[RawCase]:
    """Photographs with the first observer as truth, the second as a reading."""
    return find_cases(CARD, root)
