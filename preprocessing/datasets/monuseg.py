"""MoNuSeg: nuclei in H&E images of seven organs, outlined in ImageScope XML.

Source https://monuseg.grand-challenge.org/Data, doi:10.1109/TMI.2017.2677499. Images of TCGA slides: the
patient, whose barcode begins the name, is the group. The official test part stays test. Every outline is one
nucleus; touching and overlapping ones stay apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import DatasetCard, Layout, Licence, Polygons, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="MoNuSeg",
    title="MoNuSeg 2018 nuclei",
    modality="histopathology",
    licence=Licence("CC BY-NC-SA 4.0 as remembered, not checked", commercial="no"),
    citation="Kumar et al., A multi-organ nucleus segmentation challenge, IEEE Trans Med Imaging 39 (2020) 1380-1391",
    doi="10.1109/TMI.2019.2947628",
    homepage="https://monuseg.grand-challenge.org/Data/",
    layout_checked="torch-em 6f71247c, histopathology/monuseg.py; folder names in several public scripts",
    layouts=(
        Layout(
            image=r"(.*/)?Tissue Images/(?P<case>TCGA-[^/]+)\.tif",
            label=r"(.*/)?Annotations/(?P<case>TCGA-[^/]+)\.xml",
        ),
        Layout(
            image=r"(.*/)?MoNuSeg(?P<split>Test)Data/(?P<case>TCGA-[^/]+)\.tif",
            label=r"(.*/)?MoNuSeg(?P<split>Test)Data/(?P<case>TCGA-[^/]+)\.xml",
        ),
    ),
    labels=Polygons({"": "cell nucleus"}),
    instances="values",
    searched=("cell nucleus",),
    annotator="engineering students, checked by a pathologist",
    group=r"^(TCGA-[^-]+-[^-]+)",
    official_split={"Test": "test"},
)


def cases(root: Path) -> Iterator[RawCase]:
    """Images with the outlines of the same name."""
    return find_cases(CARD, root)
