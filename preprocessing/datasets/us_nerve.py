"""US-Nerve: the brachial plexus in ultrasound of the neck.

Source https://www.kaggle.com/c/ultrasound-nerve-segmentation. Names are `{subject}_{n}.tif`; a subject is one
group. An empty mask says that no plexus was seen. The test images have no masks.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import Binary, DatasetCard, Layout, Licence, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="US-Nerve",
    title="Ultrasound nerve segmentation",
    modality="ultrasound",
    licence=Licence("rules of the Kaggle competition", commercial="unknown"),
    citation="Montoya et al., Ultrasound Nerve Segmentation, Kaggle 2016",
    homepage="https://www.kaggle.com/c/ultrasound-nerve-segmentation",
    layout_checked="torch-em 8a405e18, medical/us_nerve.py",
    layouts=(
        Layout(
            image=r"(.*/)?train/(?P<case>\d+_\d+)\.tif",
            label=r"(.*/)?train/(?P<case>\d+_\d+)_mask\.tif",
        ),
    ),
    labels=Binary("brachial plexus"),
    searched=("brachial plexus",),
    annotator="trained annotators of the competition",
    group=r"^(\d+)_",
    not_data={
        r"(.*/)?test/[^/]+\.tif": "images of the competition's test, without masks",
        r"(.*/)?(train_masks|sample_submission)\.csv": "run lengths of the same masks",
    },
)


def cases(root: Path) -> Iterator[RawCase]:
    """Frames with the mask of the same name."""
    return find_cases(CARD, root)
