"""CVC-ClinicDB: polyps in colonoscopy. An external test set: never for training.

Source https://polyp.grand-challenge.org/CVCClinicDB, doi:10.1016/j.compmedimag.2015.02.007. 612 frames of 29
sequences; which frame is of which sequence is only in the paper, so a random split would leak.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import Binary, DatasetCard, Layout, Licence, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="CVC-ClinicDB",
    title="CVC-ClinicDB polyps",
    modality="endoscopy",
    licence=Licence("research, citation required; not checked further", commercial="no"),
    citation="Bernal et al., WM-DOVA maps for accurate polyp highlighting, Comput Med Imaging Graph 43 (2015) 99-111",
    doi="10.1016/j.compmedimag.2015.02.007",
    homepage="https://polyp.grand-challenge.org/CVCClinicDB/",
    layout_checked="Medical-SAM3 98fb4f9, inference/dataset_loaders.py",
    layouts=(
        Layout(
            image=r"(.*/)?(?P<within>PNG|TIF|CVC-ClinicDB)/Original/(?P<case>\d+)\.(png|tif)",
            label=r"(.*/)?(?P<within>PNG|TIF|CVC-ClinicDB)/Ground Truth/(?P<case>\d+)\.(png|tif)",
        ),
    ),
    labels=Binary("polyp"),
    instances="components",
    searched=("polyp",),
    evaluation_only=True,
    annotator="clinicians of Hospital Clinic, Barcelona",
    not_data={r"(.*/)?metadata\.csv": "the sequence of each frame"},
)


def cases(root: Path) -> Iterator[RawCase]:
    """Frames with the mask of the same number."""
    return find_cases(CARD, root)
