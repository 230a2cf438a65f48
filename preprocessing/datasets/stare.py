"""STARE: retinal vessels in fundus photographs. An external test set: never for training.

Source https://cecas.clemson.edu/~ahoover/stare, doi:10.1109/42.845178. PPM, often gzipped. Adam Hoover is the
truth, as in the literature; Valentina Kouznetsova gives the agreement.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import Binary, DatasetCard, Layout, Licence, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="STARE",
    title="STARE retinal vessels",
    modality="fundus photography",
    licence=Licence("not stated; not checked"),
    citation="Hoover et al., Locating blood vessels in retinal images, IEEE Trans Med Imaging 19 (2000) 203-210",
    doi="10.1109/42.845178",
    homepage="https://cecas.clemson.edu/~ahoover/stare/",
    layout_checked="torch-em e38c9cf9, medical/stare.py; Medical-SAM3 98fb4f9, inference/dataset_loaders.py",
    layouts=(
        Layout(
            image=r"(.*/)?(?P<case>im\d+)\.ppm(\.gz)?",
            label=r"(.*/)?(?P<case>im\d+)\.ah\.ppm(\.gz)?",
            readings={"vk": r"(.*/)?(?P<case>im\d+)\.vk\.ppm(\.gz)?"},
        ),
    ),
    labels=Binary("retinal vessel"),
    searched=("retinal vessel",),
    evaluation_only=True,
    annotator="ah",
)


def cases(root: Path) -> Iterator[RawCase]:
    """Photographs with the first annotator as truth, the second as a reading."""
    return find_cases(CARD, root)
