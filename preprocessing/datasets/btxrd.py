"""BTXRD: radiographs of limbs and hips with primary bone tumours, outlined in LabelMe.

Source doi:10.6084/m9.figshare.27865398, doi:10.1038/s41597-024-04311-y. Only tumour images have an annotation,
whose label is the kind of tumour; all kinds are one concept. The normal radiographs have none and are
quarantined as label_missing: the spreadsheet says that they are normal, no file shows that they were searched.
The paper says CC BY-NC-ND, figshare says CC BY: the stricter one counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import DatasetCard, Layout, Licence, Polygons, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="BTXRD",
    title="Bone Tumor X-ray Radiograph Dataset",
    modality="X-ray",
    licence=Licence("CC BY-NC-ND 4.0 in the paper", spdx="CC-BY-NC-ND-4.0", redistribution="no", commercial="no"),
    citation="Yao et al., A radiograph dataset of primary bone tumors, Sci Data (2025)",
    doi="10.1038/s41597-024-04311-y",
    homepage="https://doi.org/10.6084/m9.figshare.27865398",
    layout_checked="torch-em 01886039, medical/btxrd.py; names of the kinds in a public preprocessing script",
    layouts=(
        Layout(
            image=r"(BTXRD/)?images/(?P<case>[^/]+)\.jpe?g",
            label=r"(BTXRD/)?Annotations/(?P<case>[^/]+)\.json",
        ),
    ),
    labels=Polygons(
        {
            "osteochondroma": "bone tumor",
            "multiple osteochondromas": "bone tumor",
            "simple bone cyst": "bone tumor",
            "giant cell tumor": "bone tumor",
            "osteofibroma": "bone tumor",
            "synovial osteochondroma": "bone tumor",
            "other bt": "bone tumor",
            "osteosarcoma": "bone tumor",
            "other mt": "bone tumor",
        }
    ),
    instances="values",
    searched=("bone tumor",),
    annotator="radiologists and orthopaedic surgeons",
    not_data={r"(BTXRD/)?dataset\.(csv|xlsx)": "age, sex, body part and kind of each image"},
)


def cases(root: Path) -> Iterator[RawCase]:
    """Radiographs with the LabelMe file of the same name."""
    return find_cases(CARD, root)
