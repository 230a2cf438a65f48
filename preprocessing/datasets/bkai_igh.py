"""BKAI-IGH NeoPolyp: colonoscopy with neoplastic polyps in red and non-neoplastic ones in green.

Source https://www.kaggle.com/c/bkai-igh-neopolyp, doi:10.1007/978-3-030-90436-4_2. Masks are JPEG: colours at the
edges lie anywhere between two codes, so the nearest code counts. Test images have no masks.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import ByColour, DatasetCard, Layout, Licence, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="BKAI-IGH",
    title="BKAI-IGH NeoPolyp-Small",
    modality="endoscopy",
    licence=Licence("rules of the Kaggle competition: research", commercial="no"),
    citation="Ngoc Lan et al., NeoUNet: Towards accurate colon polyp segmentation and neoplasm detection, ISVC 2021",
    doi="10.1007/978-3-030-90436-4_2",
    homepage="https://www.kaggle.com/c/bkai-igh-neopolyp",
    layout_checked="torch-em 3db1c5ef, medical/bkai_igh_neopolyp.py",
    layouts=(
        Layout(
            image=r"(train/)?train/(?P<case>[^/]+)\.jpeg",
            label=r"(train_gt/)?train_gt/(?P<case>[^/]+)\.jpeg",
        ),
    ),
    labels=ByColour((((255, 0, 0), "neoplastic polyp"), ((0, 255, 0), "non-neoplastic polyp")), tolerance=160),
    instances="components",
    searched=("neoplastic polyp", "non-neoplastic polyp"),
    annotator="two endoscopists of the Institute of Gastroenterology and Hepatology, Hanoi",
    not_data={
        r"(test/)?test/[^/]+\.jpeg": "images of the competition's test, without masks",
        r"sample_submission\.csv": "a form for the competition",
    },
)


def cases(root: Path) -> Iterator[RawCase]:
    """Images with the colour mask of the same name."""
    return find_cases(CARD, root)
