"""BUS-UCLM: breast ultrasound of 38 patients, benign green and malignant red in colour masks.

Source doi:10.17632/7fvgj4jsp7, CC BY 4.0, doi:10.1038/s41597-025-04562-3. Normal images have a black mask. The
letters before the number in a name are the patient's, as remembered; where a name has none it is a group of
its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import ByColour, DatasetCard, Layout, Licence, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="BUS-UCLM",
    title="BUS-UCLM breast ultrasound",
    modality="ultrasound",
    licence=Licence("CC BY 4.0", spdx="CC-BY-4.0", redistribution="yes", commercial="yes"),
    citation="BUS-UCLM: Breast ultrasound lesion segmentation dataset, Sci Data (2025)",
    doi="10.1038/s41597-025-04562-3",
    homepage="https://data.mendeley.com/datasets/7fvgj4jsp7",
    layout_checked="torch-em 65f1278a, medical/bus_uclm.py; patients' letters as remembered",
    layouts=(
        Layout(
            image=r"(.*/)?images/(?P<case>[^/]+)\.png",
            label=r"(.*/)?masks/(?P<case>[^/]+)\.png",
        ),
    ),
    labels=ByColour((((0, 255, 0), "benign breast tumor"), ((255, 0, 0), "malignant breast tumor")), tolerance=32),
    instances="components",
    searched=("benign breast tumor", "malignant breast tumor"),
    annotator="expert radiologists",
    group=r"^([A-Za-z]+)_?\d+$",
    not_data={r"(.*/)?INFO\.csv": "kind and findings of each image"},
)


def cases(root: Path) -> Iterator[RawCase]:
    """Images with the colour mask of the same name."""
    return find_cases(CARD, root)
