"""Breast Cancer: cell regions in H&E images of tissue microarrays, benign and malignant (UCSB, 58 images).

Source https://www.kaggle.com/datasets/andrewmvd/breast-cancer-cell-segmentation, doi:10.1109/ICIP.2008.4712130.
Image `ytma…_ccd.tif`, mask `ytma….TIF`. The array core before `benign1` is the group. The paper's 151 images fit
BCSS, which has a card of its own, better than this set; both are tissue image + mask.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import ByFile, DatasetCard, Layout, Licence, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="BreastCancerCells",
    title="Breast cancer cell segmentation (UCSB)",
    modality="histopathology",
    licence=Licence("not stated; not checked"),
    citation="Gelasca et al., Evaluation and benchmark for biological image segmentation, ICIP 2008",
    doi="10.1109/ICIP.2008.4712130",
    homepage="https://www.kaggle.com/datasets/andrewmvd/breast-cancer-cell-segmentation",
    layout_checked="image names in public scripts; folders and mask names as remembered, not checked",
    layouts=(
        Layout(
            image=r"(.*/)?Images/(?P<case>ytma[^/]+)_ccd\.tif",
            label=r"(.*/)?Masks/(?P<case>ytma[^/]+)\.(TIF|tif)",
        ),
    ),
    labels=ByFile({"": "cell nucleus"}),
    instances="components",
    searched=("cell nucleus",),
    annotator="experts of UCSB",
    group=r"^(ytma\d+_\d+)_",
)


def cases(root: Path) -> Iterator[RawCase]:
    """Images with the mask of the same core."""
    return find_cases(CARD, root)
