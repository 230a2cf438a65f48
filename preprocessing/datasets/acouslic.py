"""ACOUSLIC-AI: stacks of blind-sweep ultrasound frames with the fetal abdomen in an optimal or suboptimal plane.

Source https://acouslic-ai.grand-challenge.org, doi:10.5281/zenodo.11005384, CC BY-NC-SA. One MetaImage of 840
frames a pregnancy, cut frame by frame. In each frame either plane was looked for; most frames have neither.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import ByValue, DatasetCard, Layout, Licence, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="ACOUSLIC",
    title="ACOUSLIC-AI fetal abdomen",
    modality="ultrasound",
    licence=Licence("CC BY-NC-SA 4.0", spdx="CC-BY-NC-SA-4.0", redistribution="yes", commercial="no"),
    citation="ACOUSLIC-AI challenge, public training and development set, Zenodo 2024",
    doi="10.5281/zenodo.11005384",
    homepage="https://acouslic-ai.grand-challenge.org",
    layout_checked="torch-em 6f71247c, medical/acouslic_ai.py; the challenge's page for the licence",
    layouts=(
        Layout(
            image=r"(.*/)?images/stacked_fetal_ultrasound/(?P<case>[^/]+)\.mha",
            label=r"(.*/)?masks/stacked_fetal_abdomen/(?P<case>[^/]+)\.mha",
        ),
    ),
    labels=ByValue({1: "fetal abdomen in an optimal plane", 2: "fetal abdomen in a suboptimal plane"}),
    axes=("z",),
    searched=("fetal abdomen in an optimal plane", "fetal abdomen in a suboptimal plane"),
    unions=("fetal abdomen",),
    annotator="medical annotators, checked by an expert",
    not_data={r"(.*/)?circumferences/.*": "circumferences in millimetres"},
)


def cases(root: Path) -> Iterator[RawCase]:
    """Stacks of frames with the stack of masks of the same name."""
    return find_cases(CARD, root)
