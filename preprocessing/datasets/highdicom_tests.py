"""Test data of highdicom: tiny DICOM-SEG of every type, most of a CT series that is not there.

Source https://github.com/ImagingDataCommons/highdicom (4972873), MIT, doi:10.1007/s10278-022-00683-y. Segments are
artificial. Every SEG is a case of its own: the one of the CT image that is there is kept, those of the absent
series and of slide microscopy are quarantined.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import DatasetCard, Intensity, Layout, Licence, RawCase, Segments
from preprocessing.pairing import one_case_a_label
from preprocessing.readers.dicom import find_dicom_cases

CARD = DatasetCard(
    name="highdicom",
    title="highdicom test files",
    modality="CT",
    licence=Licence("MIT", spdx="MIT", redistribution="yes", commercial="yes"),
    citation="Bridge et al., Highdicom, J Digit Imaging 35 (2022) 1719-1737",
    doi="10.1007/s10278-022-00683-y",
    homepage="https://github.com/ImagingDataCommons/highdicom",
    layout_checked="the files themselves",
    layouts=(
        Layout(
            image=r"test_files/(?P<case>ct_image|sm_image[^/]*)\.dcm",
            label=r"test_files/(?P<case>seg_image_[^/]+)\.dcm",
        ),
    ),
    labels=Segments({"first segment": "test region", "second segment": "other test region"}),
    intensity=Intensity("window", (-160.0, 240.0)),
    annotator="artificial",
)


def cases(root: Path) -> Iterator[RawCase]:
    """Every SEG with the series that it references."""
    return one_case_a_label(find_dicom_cases(CARD, root))
