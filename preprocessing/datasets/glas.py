"""GlaS: colon glands in H&E histology (MICCAI 2015).

Source https://warwick.ac.uk/fac/cross_fac/tia/data/glascontest, doi:10.1016/j.media.2016.08.008, research
only. The mirror has the test images alone, as JPEG copies of image and mask: masks are thresholded and
touching glands are one instance. The original has `<name>_anno.bmp` with instance numbers. testA and
testB stay test; patients are only in Grade.csv.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import Binary, DatasetCard, InstanceIds, Layout, Licence, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="GlaS",
    title="Gland segmentation in colon histology",
    modality="histopathology",
    licence=Licence("research only, citation required", redistribution="unknown", commercial="no"),
    citation="Sirinukunwattana et al., Gland segmentation in colon histology images, Med Image Anal 35 (2017) 489-502",
    doi="10.1016/j.media.2016.08.008",
    homepage="https://warwick.ac.uk/fac/cross_fac/tia/data/glascontest",
    layout_checked="the files themselves; the contest's page for the original names",
    layouts=(
        Layout(
            image=r"images/(?P<case>(?P<split>testA|testB|train)_\d+)\.jpg",
            label=r"masks/(?P<case>(?P<split>testA|testB|train)_\d+)\.jpg",
        ),
        Layout(
            image=r"(.*/)?(?P<case>(?P<split>testA|testB|train)_\d+)\.bmp",
            label=r"(.*/)?(?P<case>(?P<split>testA|testB|train)_\d+)_anno\.bmp",
            labels=InstanceIds("gland"),
            instances="values",
        ),
    ),
    labels=Binary("gland"),
    instances="components",
    searched=("gland",),
    annotator="an expert pathologist",
    official_split={"testA": "test", "testB": "test", "train": "development"},
    not_data={r"(.*/)?Grade\.csv": "grades and patient numbers"},
)


def cases(root: Path) -> Iterator[RawCase]:
    """Images paired with the mask of the same name."""
    return find_cases(CARD, root)
