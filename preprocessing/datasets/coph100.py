"""COph100: retinal vessels in fundus photographs of infants, masks made by a network and corrected.

Source doi:10.1038/s41597-025-04426-w (masks CC BY 4.0), photographs of doi:10.1038/s41597-024-03409-7 (CC0), which
its own script copies beside the masks. The first three digits of a name are the patient's: one group.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import ByFile, DatasetCard, Layout, Licence, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="COph100",
    title="COph100 infants' retinal vessels",
    modality="fundus photography",
    licence=Licence("masks CC BY 4.0, photographs CC0", spdx="CC-BY-4.0", redistribution="yes", commercial="yes"),
    citation="COph100: fundus image registration dataset from infants, Sci Data (2025)",
    doi="10.1038/s41597-025-04426-w",
    homepage="https://www.nature.com/articles/s41597-025-04426-w",
    layout_checked="torch-em 5f96049b, medical/coph100.py",
    layouts=(
        Layout(
            image=r"(.*/)?(?P<within>[^/]+)/(?P<case>\d{3}[^/]*)\.jpg",
            label=r"(.*/)?(?P<within>[^/]+)/(?P<case>\d{3}[^/]*)_mask\.png",
        ),
    ),
    labels=ByFile({"": "retinal vessel"}),
    searched=("retinal vessel",),
    annotator="automatic, checked by the authors",
    group=r"_(\d{3})[^_]*_",
    not_data={r"(.*/)?[^/]+\.(txt|py|csv|xlsx)": "point pairs for registration, and the authors' script"},
)


def cases(root: Path) -> Iterator[RawCase]:
    """Photographs with the mask of the same name."""
    return find_cases(CARD, root)
