"""HC18: the fetal head in ultrasound. An external test set: never for training.

Source doi:10.5281/zenodo.1327317, CC BY 4.0, doi:10.1371/journal.pone.0200412. The annotation is the outline of an
ellipse, which is filled. `010_HC` and `010_2HC` are one pregnancy: one group. The test images have no outline.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import DatasetCard, Layout, Licence, Official, Outline, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="HC18",
    title="HC18 fetal head circumference",
    modality="ultrasound",
    licence=Licence("CC BY 4.0", spdx="CC-BY-4.0", redistribution="yes", commercial="yes"),
    citation="van den Heuvel et al., Automated measurement of fetal head circumference, PLoS ONE 13 (2018) e0200412",
    doi="10.1371/journal.pone.0200412",
    homepage="https://zenodo.org/records/1327317",
    layout_checked="torch-em 65f1278a, medical/hc18.py; Medical-SAM3 98fb4f9, inference/dataset_loaders.py",
    layouts=(
        Layout(
            image=r"(training_set/)?(?P<case>\d+_\d*HC)\.png",
            label=r"(training_set/)?(?P<case>\d+_\d*HC)_Annotation\.png",
        ),
    ),
    labels=Outline("fetal head"),
    searched=("fetal head",),
    evaluation_only=True,
    annotator="a trained sonographer",
    group=r"^(\d+)_",
    not_data={
        r"test_set/[^/]+\.png": "test images of the challenge, without outlines",
        r"(.*/)?(training|test)_set_pixel_size[^/]*\.csv": "millimetres a pixel",
    },
    official=Official("https://zenodo.org/records/1327317/files/training_set.zip", None, 0, "zip"),
)


def cases(root: Path) -> Iterator[RawCase]:
    """Images with the outline of the same name."""
    return find_cases(CARD, root)
