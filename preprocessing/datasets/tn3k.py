"""TN3K: thyroid nodules in ultrasound. An external test set: never for training.

Source https://github.com/haifangong/TRFE-Net-for-thyroid-nodule-segmentation, doi:10.1016/j.compbiomed.2022.106389.
JPEG masks; trainval and test repeat their numbers. Patients are not in the names.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import Binary, DatasetCard, Layout, Licence, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="TN3K",
    title="TN3K thyroid nodules",
    modality="ultrasound",
    licence=Licence("research, citation required; not checked further"),
    citation="Gong et al., Thyroid region prior guided attention, Comput Biol Med 155 (2023) 106389",
    doi="10.1016/j.compbiomed.2022.106389",
    homepage="https://github.com/haifangong/TRFE-Net-for-thyroid-nodule-segmentation",
    layout_checked="torch-em 4fa51acf, medical/tn3k.py; Medical-SAM3 98fb4f9, inference/dataset_loaders.py",
    layouts=(
        Layout(
            image=r"(.*/)?(?P<within>(?P<split>trainval|test))-image/(?P<case>\d+)\.jpg",
            label=r"(.*/)?(?P<within>(?P<split>trainval|test))-mask/(?P<case>\d+)\.(jpg|png)",
        ),
    ),
    labels=Binary("thyroid nodule"),
    instances="components",
    searched=("thyroid nodule",),
    evaluation_only=True,
    annotator="physicians of the authors",
    official_split={"trainval": "development", "test": "test"},
    not_data={r"(.*/)?tn3k-trainval-fold\d\.json": "a list of the same files"},
)


def cases(root: Path) -> Iterator[RawCase]:
    """Images with the mask of the same number."""
    return find_cases(CARD, root)
