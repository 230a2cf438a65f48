"""TG3K: the thyroid gland, not its nodules, in ultrasound. An external test set: never for training.

Source https://github.com/haifangong/TRFE-Net-for-thyroid-nodule-segmentation, doi:10.1109/ISBI48211.2021.9434087.
Frames of sixteen videos, which the names do not tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import Binary, DatasetCard, Layout, Licence, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="TG3K",
    title="TG3K thyroid gland",
    modality="ultrasound",
    licence=Licence("research, citation required; not checked further"),
    citation="Gong et al., Multi-task learning for thyroid nodule segmentation with thyroid region prior, ISBI 2021",
    doi="10.1109/ISBI48211.2021.9434087",
    homepage="https://github.com/haifangong/TRFE-Net-for-thyroid-nodule-segmentation",
    layout_checked="torch-em e1626c12, medical/tg3k.py; Medical-SAM3 98fb4f9, inference/dataset_loaders.py",
    layouts=(
        Layout(
            image=r"(.*/)?(thyroid-)?image/(?P<case>\d+)\.jpg",
            label=r"(.*/)?(thyroid-)?mask/(?P<case>\d+)\.(jpg|png)",
        ),
    ),
    labels=Binary("thyroid gland"),
    searched=("thyroid gland",),
    evaluation_only=True,
    annotator="physicians of the authors",
    not_data={r"(.*/)?tg3k-trainval\.json": "a list of the same files"},
)


def cases(root: Path) -> Iterator[RawCase]:
    """Frames with the mask of the same number."""
    return find_cases(CARD, root)
