"""ETIS-Larib: polyps in colonoscopy. An external test set: never for training.

Source https://polyp.grand-challenge.org/ETISLarib, doi:10.1007/s11548-013-0926-3. 196 frames of 34 sequences,
which the names do not tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import Binary, DatasetCard, Layout, Licence, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="ETIS-Larib",
    title="ETIS-Larib polyps",
    modality="endoscopy",
    licence=Licence("research, citation required; not checked further", commercial="no"),
    citation="Silva et al., Toward embedded detection of polyps in WCE images, IJCARS 9 (2014) 283-293",
    doi="10.1007/s11548-013-0926-3",
    homepage="https://polyp.grand-challenge.org/ETISLarib/",
    layout_checked="torch-em 81e05cae, medical/etis_larib.py; Medical-SAM3 98fb4f9, inference/dataset_loaders.py",
    layouts=(
        Layout(
            image=r"(.*/)?images/(?P<case>\d+)\.png",
            label=r"(.*/)?masks/(?P<case>\d+)\.png",
        ),
    ),
    labels=Binary("polyp"),
    instances="components",
    searched=("polyp",),
    evaluation_only=True,
    annotator="clinicians of Hospital Lariboisiere, Paris",
)


def cases(root: Path) -> Iterator[RawCase]:
    """Frames with the mask of the same number."""
    return find_cases(CARD, root)
