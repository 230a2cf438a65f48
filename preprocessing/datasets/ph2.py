"""PH2: dermoscopy of melanocytic lesions. An external test set: never for training.

Source https://www.fc.up.pt/addi/ph2%20database.html, doi:10.1109/EMBC.2013.6610779. A folder an image, with the
image, the lesion's mask and masks of colour regions in folders of their own, all BMP.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import Binary, DatasetCard, Layout, Licence, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="PH2",
    title="PH2 skin lesions",
    modality="dermoscopy",
    licence=Licence("research and education only, registration", commercial="no"),
    citation="Mendonca et al., PH2: A dermoscopic image database for research and benchmarking, EMBC 2013",
    doi="10.1109/EMBC.2013.6610779",
    homepage="https://www.fc.up.pt/addi/ph2%20database.html",
    layout_checked="torch-em 65f1278a, medical/ph2.py; Medical-SAM3 98fb4f9, inference/dataset_loaders.py",
    layouts=(
        Layout(
            image=r"(.*/)?(?P<case>IMD\d+)/IMD\d+_Dermoscopic_Image/IMD\d+\.bmp",
            label=r"(.*/)?(?P<case>IMD\d+)/IMD\d+_lesion/IMD\d+_lesion\.bmp",
        ),
    ),
    labels=Binary("skin lesion"),
    searched=("skin lesion",),
    evaluation_only=True,
    annotator="a dermatologist of Hospital Pedro Hispano",
    not_data={
        r"(.*/)?IMD\d+_roi/.*": "colour regions within the lesion",
        r"(.*/)?PH2_dataset\.(txt|xlsx)": "clinical criteria",
    },
)


def cases(root: Path) -> Iterator[RawCase]:
    """A folder an image, with its lesion mask."""
    return find_cases(CARD, root)
