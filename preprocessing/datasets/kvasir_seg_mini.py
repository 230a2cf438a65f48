"""Seventeen more images of Kvasir-SEG, re-hosted under their original names.

Source https://datasets.simula.no/kvasir-seg/, doi:10.1007/978-3-030-37734-2_37. The family is Kvasir-SEG: an
image that is in both sets has the same split in both.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import Binary, DatasetCard, Layout, Licence, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="Kvasir-SEG_mini",
    title="Kvasir-SEG polyps, a small copy",
    modality="endoscopy",
    licence=Licence("research and educational use, citation required", redistribution="unknown", commercial="no"),
    citation="Jha et al., Kvasir-SEG: A Segmented Polyp Dataset, MMM 2020",
    doi="10.1007/978-3-030-37734-2_37",
    homepage="https://datasets.simula.no/kvasir-seg/",
    layout_checked="the files themselves",
    layouts=(Layout(image=r"images/(?P<case>[^/]+)\.jpg", label=r"masks/(?P<case>[^/]+)\.jpg"),),
    labels=Binary("polyp"),
    instances="components",
    searched=("polyp",),
    annotator="a doctor, verified by a gastroenterologist",
    family="Kvasir-SEG",
)


def cases(root: Path) -> Iterator[RawCase]:
    """Images paired with the mask of the same name."""
    return find_cases(CARD, root)
