"""Test data of dcmqi: CT series of three slices with DICOM-SEG truth.

Source https://github.com/QIICR/dcmqi (data/segmentations), BSD-3-Clause, doi:10.1158/0008-5472.CAN-17-0336.
A SEG belongs to the series whose UID it references. partial_overlaps.dcm holds overlapping regions named
by colours: test regions, kept under names that say so. 23x38x3 and 24x38x3 are crops of one patient.
Only what a SEG holds was searched for, so an organ without a SEG is unknown, not absent.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import DatasetCard, Intensity, Layout, Licence, RawCase, Segments
from preprocessing.readers.dicom import find_dicom_cases

CARD = DatasetCard(
    name="dcmqi",
    title="dcmqi test segmentations",
    modality="CT",
    licence=Licence("BSD-3-Clause", spdx="BSD-3-Clause", redistribution="yes", commercial="yes"),
    citation="Herz et al., dcmqi: An Open Source Library for Standardized Communication, Cancer Res 77 (2017) e87",
    doi="10.1158/0008-5472.CAN-17-0336",
    homepage="https://github.com/QIICR/dcmqi",
    layout_checked="the repository's data/segmentations",
    layouts=(
        Layout(
            image=r"(?P<case>(.*/)?(ct-3slice|\d+x\d+x3/image))/[^/]+\.dcm",
            label=r"(.*/)?(?P<case>liver|partial_overlaps|[^/]+/seg/label)\.(dcm|seg)",
        ),
    ),
    labels=Segments(
        {
            "liver": "liver",
            "green": "green test region",
            "orange": "orange test region",
            "purple": "purple test region",
            "light_blue": "light blue test region",
            "dark_blue": "dark blue test region",
        }
    ),
    intensity=Intensity("window", (-160.0, 240.0)),
    annotator="authors of dcmqi; not a clinical gold standard",
    not_data={
        r"(.*/)?[^/]+\.nrrd": "the same masks once more, as NRRD",
        r"(.*/)?multiframe/mf\.dcm": "the same pixels as the series beside it, as enhanced CT",
        r"(.*/)?sparse-labelmap-[^/]+\.dcm": "the truth of 24x38x3 once more, with frames left out",
    },
)


def cases(root: Path) -> Iterator[RawCase]:
    """Series by their UID with the SEGs that reference them; a patient is one group."""
    return find_dicom_cases(CARD, root)
