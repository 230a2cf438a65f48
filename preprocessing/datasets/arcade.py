"""ARCADE: coronary angiograms, vessel segments of the SYNTAX score and stenoses, in COCO files.

Source doi:10.5281/zenodo.10390295, doi:10.1038/s41597-023-02871-z. Two tasks with images of their own; in
`syntax` only segments were drawn, in `stenosis` only stenoses, so neither says anything about the other.
Every segment is one object. Patients are not in the names; the official split is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import Coco, DatasetCard, Layout, Licence, Official, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="ARCADE",
    title="ARCADE coronary angiography",
    modality="X-ray angiography",
    licence=Licence("CC BY 4.0 as remembered, not checked"),
    citation="Popov et al., Dataset for region-based coronary artery disease diagnostics, Sci Data 11 (2024) 20",
    doi="10.1038/s41597-023-02871-z",
    homepage="https://zenodo.org/records/10390295",
    layout_checked="torch-em 40f0bb60, medical/arcade.py; category names as remembered of laudominik/torch-arcade",
    layouts=(
        Layout(
            image=r"(arcade/)?(?P<case>(?P<set>(syntax|stenosis)/(?P<split>train|val|test))/images/\d+)\.png",
            label=r"(arcade/)?(?P<set>(syntax|stenosis)/(train|val|test))/annotations/[^/]+\.json",
        ),
    ),
    labels=Coco(
        {
            **dict.fromkeys(
                (
                    "1",
                    "2",
                    "3",
                    "4",
                    "5",
                    "6",
                    "7",
                    "8",
                    "9",
                    "9a",
                    "10",
                    "10a",
                    "11",
                    "12",
                    "12a",
                    "12b",
                    "13",
                    "14",
                    "14a",
                    "14b",
                    "15",
                    "16",
                    "16a",
                    "16b",
                    "16c",
                ),
                "coronary artery segment",
            ),
            "stenosis": "coronary stenosis",
        }
    ),
    instances="values",
    annotator="cardiologists of the Research Institute of Cardiology, Almaty",
    official_split={"train": "train", "val": "val", "test": "test"},
    official=Official("https://zenodo.org/records/10390295/files/arcade.zip", None, 0, "zip"),
)


def cases(root: Path) -> Iterator[RawCase]:
    """Angiograms, each with the COCO file of its task and part."""
    return find_cases(CARD, root)
