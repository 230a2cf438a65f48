"""DDTI: thyroid nodules in ultrasound. An external test set: never for training.

Source doi:10.1117/12.2073532; a copy with masks drawn from the original XML,
https://www.kaggle.com/datasets/srivarshachivukula/ddti-dataset. Its second folder has the same pictures cut out.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import ByFile, DatasetCard, Layout, Licence, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="DDTI",
    title="DDTI thyroid nodules",
    modality="ultrasound",
    licence=Licence("not stated; not checked"),
    citation="Pedraza et al., An open access thyroid ultrasound image database, SIPAIM 2015",
    doi="10.1117/12.2073532",
    homepage="https://www.kaggle.com/datasets/srivarshachivukula/ddti-dataset",
    layout_checked="torch-em 5f96049b, medical/ddti.py; Medical-SAM3 98fb4f9, inference/dataset_loaders.py",
    layouts=(
        Layout(
            image=r"(.*1_or_data/)?image/(?P<case>[^/]+)\.(PNG|png)",
            label=r"(.*1_or_data/)?mask/(?P<case>[^/]+)\.(PNG|png)",
        ),
    ),
    labels=ByFile({"": "thyroid nodule"}),
    instances="components",
    searched=("thyroid nodule",),
    evaluation_only=True,
    annotator="radiologists of the authors",
    not_data={r"(.*/)?2_preprocessed_data/.*": "the same pictures, cut out"},
)


def cases(root: Path) -> Iterator[RawCase]:
    """Images with the mask of the same name."""
    return find_cases(CARD, root)
