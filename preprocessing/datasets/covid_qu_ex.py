"""COVID-QU-Ex: chest X-rays with lung masks, and for COVID-19 with infection masks.

Source https://www.kaggle.com/datasets/anasmohammedtahir/covidqu, doi:10.1016/j.compbiomed.2021.104319. Two
sets lie side by side, lungs of all and infections of some; one X-ray may be in both, and is one group. The
archive repeats the name of each set's folder. The official split is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import ByFile, DatasetCard, Layout, Licence, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="COVID-QU-Ex",
    title="COVID-QU-Ex chest X-rays",
    modality="X-ray",
    licence=Licence("as its Kaggle page says (CC BY-SA 4.0 as remembered, not checked)"),
    citation="Rahman et al., Comput Biol Med 132 (2021) 104319; Tahir et al., Comput Biol Med 139 (2021) 105002",
    doi="10.1016/j.compbiomed.2021.104319",
    homepage="https://www.kaggle.com/datasets/anasmohammedtahir/covidqu",
    layout_checked="torch-em 6f71247c, medical/covid_qu_ex.py",
    layouts=(
        Layout(
            image=r"(.*/)?(?P<within>(Lung|Infection) Segmentation Data)/(?P<split>Train|Val|Test)/[^/]+/"
            r"images/(?P<case>[^/]+)\.png",
            label=r"(.*/)?(?P<within>(Lung|Infection) Segmentation Data)/(?P<split>Train|Val|Test)/[^/]+/"
            r"(?P<part>lung masks|infection masks)/(?P<case>[^/]+)\.png",
        ),
    ),
    labels=ByFile({"lung masks": "lung", "infection masks": "lung infection"}),
    annotator="radiologists, with a network in the loop",
    group=r"^(?:Lung|Infection)_Segmentation_Data_(.+)$",
    official_split={"Train": "train", "Val": "val", "Test": "test"},
)


def cases(root: Path) -> Iterator[RawCase]:
    """X-rays with the masks of the same name; every set has its own cases."""
    return find_cases(CARD, root)
