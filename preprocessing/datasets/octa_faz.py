"""OCTA-FAZ: foveal avascular zone in en-face OCT angiography, deep and superficial plexus.

Source https://zenodo.org/records/5075194, CC BY 4.0; a re-hosted copy of 512 px. The mask's colour says
which plexus was imaged, a property of the whole image: both colours are one concept. Patients are not
in the names, and one eye may appear in both plexuses under different numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import ByColour, DatasetCard, Layout, Licence, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="OCTA_FAZ",
    title="OCT angiography, foveal avascular zone",
    modality="OCT angiography",
    licence=Licence("CC BY 4.0", spdx="CC-BY-4.0", redistribution="yes", commercial="yes"),
    citation="Wang et al., OCTA FAZ dataset, Zenodo 2021",
    doi="10.5281/zenodo.5075194",
    homepage="https://zenodo.org/records/5075194",
    layout_checked="the copy's files",
    layouts=(Layout(image=r"images/(?P<case>[^/]+)\.png", label=r"masks/(?P<case>[^/]+)\.png"),),
    labels=ByColour(
        (((255, 255, 0), "foveal avascular zone"), ((255, 0, 255), "foveal avascular zone")),
        tolerance=32,
    ),
    searched=("foveal avascular zone",),
    annotator="ophthalmologists",
)


def cases(root: Path) -> Iterator[RawCase]:
    """Images paired with the mask of the same name."""
    return find_cases(CARD, root)
