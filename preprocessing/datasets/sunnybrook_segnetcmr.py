"""Sunnybrook Cardiac Data: short-axis cine MRI slices with the left ventricle's blood pool, SegNetCMR's copy.

Source data doi:10.54294/g80ruo, CC0 1.0; copy https://github.com/mshunshin/SegNetCMR. Grey images and
masks are stored as RGB PNG, labels in a parallel tree. A patient is one group. Data/Test of the
repository is its author's own split, not an official one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import Binary, DatasetCard, Layout, Licence, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="Sunnybrook_SegNetCMR",
    title="Sunnybrook cardiac cine MRI",
    modality="MR",
    licence=Licence("CC0 1.0", spdx="CC0-1.0", redistribution="yes", commercial="yes"),
    citation="Radau et al., Evaluation framework for algorithms segmenting short axis cardiac MRI, MIDAS J 2009",
    doi="10.54294/g80ruo",
    homepage="https://www.cardiacatlas.org/sunnybrook-cardiac-data/",
    layout_checked="the repository's Data folder",
    layouts=(
        Layout(
            image=r"(Data/)?(Train|Test)/Images/[^/]+/(?P<case>SC-[^/]+)\.dcm\.png",
            label=r"(Data/)?(Train|Test)/Labels/[^/]+/(?P<case>SC-[^/]+)\.dcm\.png",
        ),
    ),
    labels=Binary("left ventricle blood pool"),
    searched=("left ventricle blood pool",),
    annotator="an experienced cardiologist (endocardial contour), filled by SegNetCMR",
    group=r"^(SC-[A-Z-]+-\d+)-IM-",
)


def cases(root: Path) -> Iterator[RawCase]:
    """A slice and its label, which has the same name in the Labels tree."""
    return find_cases(CARD, root)
