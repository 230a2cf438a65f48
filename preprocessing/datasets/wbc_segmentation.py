"""WBC: white blood cells in smears, nucleus and cytoplasm by grey level.

Source https://github.com/zxaoyou/segmentation_WBC, doi:10.1016/j.micron.2018.01.010, repository GPL-3.0;
Dataset 2 comes from a company's blog: research use. 128 is cytoplasm, 255 nucleus; some masks carry
other greys along edges, which go to the nearest code within the tolerance.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import ByValue, DatasetCard, Layout, Licence, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="WBC_segmentation",
    title="White blood cell segmentation",
    modality="light microscopy",
    licence=Licence(
        "repository GPL-3.0; Dataset 2 from a blog: research only", redistribution="unknown", commercial="no"
    ),
    citation="Zheng et al., Micron 107 (2018) 55-71",
    doi="10.1016/j.micron.2018.01.010",
    homepage="https://github.com/zxaoyou/segmentation_WBC",
    layout_checked="the repository's README and files",
    layouts=(
        Layout(
            image=r"(?P<case>Dataset \d/\d+)\.bmp",
            label=r"(?P<case>Dataset \d/\d+)\.png",
        ),
    ),
    labels=ByValue({128: "white blood cell cytoplasm", 255: "white blood cell nucleus"}, tolerance=63),
    searched=("white blood cell cytoplasm", "white blood cell nucleus"),
    annotator="domain experts",
    not_data={
        r"Class Labels of Dataset \d\.csv": "cell types, not masks",
        r"Dataset \d\.png": "an overview picture",
    },
)


def cases(root: Path) -> Iterator[RawCase]:
    """BMP image and PNG mask of the same name."""
    return find_cases(CARD, root)
