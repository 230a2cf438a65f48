"""CHASE_DB1: fundus photographs of both eyes of school children, vessels drawn by two annotators.

Source https://researchdata.kingston.ac.uk/96/, CC BY 4.0, doi:10.1109/TBME.2012.2205687. Masks are
1-bit PNG. The first annotator is the truth, as in the literature; the second gives the agreement. The
two eyes of one child are one group. An external test set of the paper.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import Binary, DatasetCard, Layout, Licence, Official, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="CHASE_DB1",
    title="CHASE_DB1 retinal vessels",
    modality="fundus photography",
    licence=Licence("CC BY 4.0", spdx="CC-BY-4.0", redistribution="yes", commercial="yes"),
    citation="Fraz et al., IEEE Trans Biomed Eng 59(9) (2012) 2538-2548",
    doi="10.1109/TBME.2012.2205687",
    homepage="https://blogs.kingston.ac.uk/retinal/chasedb1/",
    layout_checked="the files themselves, native names",
    layouts=(
        Layout(
            image=r"(CHASEDB1/)?(?P<case>Image_\d+[LR])\.jpg",
            label=r"(CHASEDB1/)?(?P<case>Image_\d+[LR])_1stHO\.png",
            readings={"2ndHO": r"(CHASEDB1/)?(?P<case>Image_\d+[LR])_2ndHO\.png"},
        ),
    ),
    labels=Binary("retinal vessel"),
    searched=("retinal vessel",),
    evaluation_only=True,
    annotator="1stHO",
    group=r"^Image_(\d+)[LR]$",
    official=Official(
        url="https://researchdata.kingston.ac.uk/96/1/CHASEDB1.zip",
        sha256=None,
        bytes=0,
        unpack="zip",
    ),
)


def cases(root: Path) -> Iterator[RawCase]:
    """A photograph, the first annotator's mask as truth, the second's as a reading."""
    return find_cases(CARD, root)
