"""Example data of dicompyler: a real RTSTRUCT of a breast, of whose CT one slice of 98 is there.

Source https://github.com/dicompyler/dicompyler-core (0d5729d), BSD-3-Clause, doi:10.1118/1.3469222. Contours of the
97 absent slices are left out, as the card says; the outer contour is on the slice that is there.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import Contours, DatasetCard, Intensity, Layout, Licence, RawCase
from preprocessing.readers.dicom import find_dicom_cases

CARD = DatasetCard(
    name="dicompyler_example_data",
    title="dicompyler example",
    modality="CT",
    licence=Licence("BSD-3-Clause", spdx="BSD-3-Clause", redistribution="yes", commercial="yes"),
    citation="Panchal and Keyes, dicompyler, Med Phys 37 (2010) 3245",
    doi="10.1118/1.3469222",
    homepage="https://github.com/dicompyler/dicompyler-core",
    layout_checked="the files themselves",
    layouts=(Layout(image=r"(?P<case>ct)\.\d+\.dcm", label=r"(?P<case>rtss)\.dcm"),),
    labels=Contours(
        {"body": "body contour", "heart": "heart", "lt lung": "left lung"},
        ignore=("areola", "borders", "breast", "nodes", "scar", "tumor bed", "tumor bed block"),
        partial=True,
    ),
    intensity=Intensity("window", (-160.0, 240.0)),
    annotator="of a radiotherapy plan",
)


def cases(root: Path) -> Iterator[RawCase]:
    """The series with the RTSTRUCT that references it."""
    return find_dicom_cases(CARD, root)
