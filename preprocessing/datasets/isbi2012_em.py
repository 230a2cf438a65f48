"""ISBI 2012: membranes in serial-section electron microscopy of a fly's nerve cord.

Source doi:10.3389/fnana.2015.00142, free for research with citation; copy https://github.com/zhixuhao/unet.
Inverted: membranes are 0. All images are sections of ONE stack, so no split can be independent: blocks
of five consecutive sections are groups, which keeps neighbours together except at block borders.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from preprocessing.cards import Binary, DatasetCard, Layout, Licence, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="ISBI2012_EM",
    title="ISBI 2012 EM membranes",
    modality="electron microscopy",
    licence=Licence("research, citation required", redistribution="unknown", commercial="unknown"),
    citation="Arganda-Carreras et al., Crowdsourcing image segmentation algorithms, Front Neuroanat 9 (2015) 142",
    doi="10.3389/fnana.2015.00142",
    homepage="https://imagej.net/events/isbi-2012-segmentation-challenge",
    layout_checked="the copy's files",
    layouts=(
        Layout(
            image=r"(.*/)?train/image/(?P<case>\d+)\.(png|tif)",
            label=r"(.*/)?train/label/(?P<case>\d+)\.(png|tif)",
        ),
    ),
    labels=Binary("cell membrane", inverted=True),
    searched=("cell membrane",),
    annotator="a human neuroanatomist",
)


def cases(root: Path) -> Iterator[RawCase]:
    """Sections with the number's block of five as group."""
    for case in find_cases(CARD, root):
        yield replace(case, group=f"sections block {int(case.case_id) // 5}")
