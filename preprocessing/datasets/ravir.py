"""RAVIR: retinal arteries and veins in infrared reflectance pictures, coded by grey level.

Source https://ravir.grand-challenge.org, doi:10.1109/JBHI.2022.3163352. 128 is artery, 255 vein. The masks of the
test pictures are not public.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import ByValue, DatasetCard, Layout, Licence, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="RAVIR",
    title="RAVIR retinal arteries and veins",
    modality="infrared reflectance",
    licence=Licence("research, registration; not checked further"),
    citation="Hatamizadeh et al., RAVIR: A dataset and methodology, IEEE J Biomed Health Inform 26 (2022) 3272-3283",
    doi="10.1109/JBHI.2022.3163352",
    homepage="https://ravir.grand-challenge.org/RAVIR/",
    layout_checked="torch-em 6f71247c, medical/ravir.py; codes 128 and 255 in a public script",
    layouts=(
        Layout(
            image=r"(.*/)?training_images/(?P<case>IR_[^/]+)\.png",
            label=r"(.*/)?training_masks/(?P<case>IR_[^/]+)\.png",
        ),
    ),
    labels=ByValue({128: "retinal artery", 255: "retinal vein"}),
    searched=("retinal artery", "retinal vein"),
    annotator="experts of the Jules Stein Eye Institute",
    not_data={r"(.*/)?test/.*": "pictures of the challenge's test, without masks"},
)


def cases(root: Path) -> Iterator[RawCase]:
    """Pictures with the mask of the same name."""
    return find_cases(CARD, root)
