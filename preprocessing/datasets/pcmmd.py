"""PCMMD: plasma and other cells of bone marrow in smartphone microscopy, single-cell crops with LabelMe outlines.

Source doi:10.17632/3v2nrxpr9s.1, CC BY 4.0, doi:10.1038/s41597-025-04459-1. The cell in the middle of a crop is
outlined, neighbours are not: so no other cell may be called absent. The detection part has boxes only.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import DatasetCard, Layout, Licence, Polygons, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="PCMMD",
    title="Plasma Cells for Multiple Myeloma Diagnosis",
    modality="light microscopy",
    licence=Licence("CC BY 4.0", spdx="CC-BY-4.0", redistribution="yes", commercial="yes"),
    citation="PCMMD: Plasma Cells for Multiple Myeloma Diagnosis, Sci Data (2025)",
    doi="10.1038/s41597-025-04459-1",
    homepage="https://doi.org/10.17632/3v2nrxpr9s.1",
    layout_checked="torch-em c4d71565, light_microscopy/pcmmd.py",
    layouts=(
        Layout(
            image=r"(.*/)?segmentation/(?P<within>(non-)?plasma cells)/images/(?P<case>[^/]+)\.jpg",
            label=r"(.*/)?segmentation/(?P<within>(non-)?plasma cells)/masks/(?P<case>[^/]+)\.json",
        ),
    ),
    labels=Polygons({"plasma_cell": "plasma cell", "non_plasma_cell": "non-plasma cell"}),
    instances="values",
    annotator="haematologists",
    not_data={r"(.*/)?data/(detection|diagnosis)/.*": "boxes and diagnoses, no outlines"},
)


def cases(root: Path) -> Iterator[RawCase]:
    """Crops with the LabelMe file of the same name."""
    return find_cases(CARD, root)
