"""BCSS: tissue regions in H&E images of triple-negative breast cancer, crowd-sourced (151 regions).

Source https://github.com/PathologyDataScience/BCSS, doi:10.1093/bioinformatics/btz083. Grey codes: 1 tumour, 2
stroma, 3 lymphocytes, 4 necrosis or debris, and seventeen rarer ones that are read as background here, as are
"outside" and "exclude": so nothing is called absent but what a region marks elsewhere. The patient is the group.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import ByValue, DatasetCard, Layout, Licence, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="BCSS",
    title="Breast Cancer Semantic Segmentation",
    modality="histopathology",
    licence=Licence("CC0 1.0 as remembered, not checked"),
    citation="Amgad et al., Structured crowdsourcing enables convolutional segmentation, Bioinformatics 35 (2019) 3461",
    doi="10.1093/bioinformatics/btz083",
    homepage="https://github.com/PathologyDataScience/BCSS",
    layout_checked="torch-em 6f71247c, histopathology/bcss.py for the codes; folders in two public scripts",
    layouts=(
        Layout(
            image=r"(.*/)?rgbs_colorNormalized/(?P<case>TCGA-[^/]+)\.png",
            label=r"(.*/)?masks/(?P<case>TCGA-[^/]+)\.png",
        ),
    ),
    labels=ByValue(
        {1: "tumor tissue", 2: "stroma", 3: "lymphocytic infiltrate", 4: "necrosis or debris"},
        ignore=(5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21),
    ),
    annotator="pathologists, residents and students, reviewed",
    group=r"^(TCGA-[^-]+-[^-]+)",
    not_data={r"(.*/)?(meta/.*|gtruth_codes\.tsv)": "codes and coordinates"},
)


def cases(root: Path) -> Iterator[RawCase]:
    """Regions with the mask of the same name."""
    return find_cases(CARD, root)
