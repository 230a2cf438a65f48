"""Test data of rt-utils: CT of a phantom with RTSTRUCTs, two of which refer to slices that are not there.

Source https://github.com/qurit/rt-utils (026e664), MIT, doi:10.21105/joss.04361. No patient. Every RTSTRUCT is a
case of its own, so that the sound one is kept. The oblique series has none.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import Contours, DatasetCard, Intensity, Layout, Licence, RawCase
from preprocessing.pairing import one_case_a_label
from preprocessing.readers.dicom import find_dicom_cases

CARD = DatasetCard(
    name="rt-utils_mock_data",
    title="rt-utils phantom",
    modality="CT",
    licence=Licence("MIT", spdx="MIT", redistribution="yes", commercial="yes"),
    citation="Shrestha et al., RT-utils, JOSS 7(73) (2022) 4361",
    doi="10.21105/joss.04361",
    homepage="https://github.com/qurit/rt-utils",
    layout_checked="the files themselves",
    layouts=(
        Layout(
            image=r"(?P<case>ct_\d+|oriented_data/\d+)\.dcm",
            label=r"(?P<case>[a-z_]*rt)\.dcm",
        ),
    ),
    labels=Contours(
        {
            "roi-1": "test region",
            "roi-2": "other test region",
            "roi-3": "third test region",
            "roi-4": "fourth test region",
        }
    ),
    intensity=Intensity("window", (-160.0, 240.0)),
    annotator="artificial",
    not_data={r"oriented_data/info\.txt": "a text about the series"},
)


def cases(root: Path) -> Iterator[RawCase]:
    """Every RTSTRUCT with the series that it references."""
    return one_case_a_label(find_dicom_cases(CARD, root))
