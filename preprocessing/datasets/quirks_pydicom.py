"""pydicom's reader tests: compressed, big-endian, cut and odd DICOM files. Nothing is labelled.

Source the package pydicom 2.4.4 (pydicom/data/test_files), MIT. A SEG and an RTSTRUCT have no images, the images
have no labels: no file can be learned from, all are quarantined.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import ByValue, DatasetCard, Layout, Licence, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="quirks_pydicom",
    title="pydicom's reader tests",
    modality="mixed",
    licence=Licence("MIT", spdx="MIT", redistribution="yes", commercial="yes"),
    citation="Mason et al., pydicom, doi:10.5281/zenodo.8034250",
    homepage="https://pydicom.github.io/",
    layout_checked="the files themselves",
    layouts=(
        Layout(
            image=r"(?P<case>(?!liver_1frame|rtstruct)[^/]+)\.(dcm|gz)", label=r"(?P<case>liver_1frame|rtstruct)\.dcm"
        ),
    ),
    labels=ByValue({}),
)


def cases(root: Path) -> Iterator[RawCase]:
    """Files without labels, and labels without images."""
    return find_cases(CARD, root)
