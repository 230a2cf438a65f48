"""Fetoscopy Placenta: placental vessels in frames of six fetoscopic videos.

Source https://www.ucl.ac.uk/interventional-surgical-sciences/fetoscopy-placenta-data,
doi:10.1007/978-3-030-59716-0_73. A video is one group. Six further videos have no masks.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import ByFile, DatasetCard, Layout, Licence, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="FetoPlac",
    title="Fetoscopy placenta vessels",
    modality="endoscopy",
    licence=Licence("CC BY-NC-SA 4.0 as remembered, not checked", commercial="no"),
    citation="Bano et al., Deep placental vessel segmentation for fetoscopic mosaicking, MICCAI 2020",
    doi="10.1007/978-3-030-59716-0_73",
    homepage="https://www.ucl.ac.uk/interventional-surgical-sciences/fetoscopy-placenta-data",
    layout_checked="torch-em f5c9e4ef, medical/fetoplac.py",
    layouts=(
        Layout(
            image=r"(.*/)?(?P<within>[Vv]ideo\d+)/images/(?P<case>[^/]+)\.png",
            label=r"(.*/)?(?P<within>[Vv]ideo\d+)/masks_gt/(?P<case>[^/]+?)(_mask)?\.png",
        ),
    ),
    labels=ByFile({"": "placental vessel"}),
    searched=("placental vessel",),
    annotator="annotators of the authors, checked by a surgeon",
    group=r"^([Vv]ideo\d+)_",
    not_data={r"(.*/)?Registration_[^/]+/.*": "videos without masks, for mosaicking"},
)


def cases(root: Path) -> Iterator[RawCase]:
    """Frames of a video with the mask of the same name."""
    return find_cases(CARD, root)
