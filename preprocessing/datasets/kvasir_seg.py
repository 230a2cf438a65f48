"""Kvasir-SEG: colonoscopy images with polyps outlined by a doctor and checked by a gastroenterologist.

Source https://datasets.simula.no/kvasir-seg/, doi:10.1007/978-3-030-37734-2_37. Masks are JPEG: grey
noise near 0 and 255, so they are thresholded. Frames of one patient cannot be told apart by name.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import Binary, DatasetCard, Layout, Licence, Official, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="Kvasir-SEG",
    title="Kvasir-SEG polyps",
    modality="endoscopy",
    licence=Licence("research and educational use, citation required", redistribution="unknown", commercial="no"),
    citation="Jha et al., Kvasir-SEG: A Segmented Polyp Dataset, MMM 2020",
    doi="10.1007/978-3-030-37734-2_37",
    homepage="https://datasets.simula.no/kvasir-seg/",
    layout_checked="the files themselves; kvasir-seg.zip unpacks Kvasir-SEG/{images,masks}",
    layouts=(
        Layout(
            image=r"(Kvasir-SEG/)?images/(?P<case>[^/]+)\.(jpg|png)",
            label=r"(Kvasir-SEG/)?masks/(?P<case>[^/]+)\.(jpg|png)",
        ),
    ),
    labels=Binary("polyp"),
    instances="components",
    searched=("polyp",),
    annotator="a doctor, verified by a gastroenterologist",
    not_data={r"(.*/)?kavsir_bboxes\.json": "boxes of the same masks"},
    official=Official(
        url="https://datasets.simula.no/downloads/kvasir-seg.zip",
        sha256=None,
        bytes=46227172,
        unpack="zip",
        root="Kvasir-SEG",
    ),
)


def cases(root: Path) -> Iterator[RawCase]:
    """Images paired with the mask of the same name."""
    return find_cases(CARD, root)
