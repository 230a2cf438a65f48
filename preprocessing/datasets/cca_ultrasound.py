"""Common carotid artery in ultrasound.

Source Momot, Mendeley Data 2022, doi:10.17632/d4xt63mgjm.1, CC BY 4.0. Many frames of one acquisition:
the acquisition, whose time stamp begins the name, is the group; the person is not in the name.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import Binary, DatasetCard, Layout, Licence, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="CCA_ultrasound",
    title="Common carotid artery ultrasound",
    modality="ultrasound",
    licence=Licence("CC BY 4.0", spdx="CC-BY-4.0", redistribution="yes", commercial="yes"),
    citation="Momot, Common Carotid Artery Ultrasound Images, Mendeley Data V1, 2022",
    doi="10.17632/d4xt63mgjm.1",
    homepage="https://data.mendeley.com/datasets/d4xt63mgjm/1",
    layout_checked="the files themselves; the archive's folders as its page lists them",
    layouts=(
        Layout(
            image=r"(.*/)?(images|US images)/(?P<case>[^/]+)\.png",
            label=r"(.*/)?(masks|Expert mask images)/(?P<case>[^/]+)\.png",
        ),
    ),
    labels=Binary("common carotid artery"),
    searched=("common carotid artery",),
    annotator="a technician, checked by an expert",
    group=r"^(\d+VAS)_",
)


def cases(root: Path) -> Iterator[RawCase]:
    """Frames paired with the mask of the same name."""
    return find_cases(CARD, root)
