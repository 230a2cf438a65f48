"""m2caiSeg: frames of laparoscopic surgery, colour-coded organs, instruments and fluids.

Source https://www.kaggle.com/datasets/salmanmaq/m2caiseg, arXiv:2008.10134. Black is out of frame; "unknown"
is no class. `trainval` holds the train pictures once more. Some masks have another size than their frame and
are quarantined. The video of a frame is not in its name for certain. The official test part stays test.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import ByColour, DatasetCard, Layout, Licence, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="m2caiSeg",
    title="m2caiSeg laparoscopic frames",
    modality="endoscopy",
    licence=Licence("research, citation required; not checked further"),
    citation="Maqbool et al., m2caiSeg: Semantic segmentation of laparoscopic images, arXiv:2008.10134",
    doi="10.48550/arXiv.2008.10134",
    homepage="https://www.kaggle.com/datasets/salmanmaq/m2caiseg",
    layout_checked="torch-em 6f71247c, medical/m2caiseg.py; whether masks end in _gt as remembered",
    layouts=(
        Layout(
            image=r"(.*/)?(?P<within>(?P<split>train|test))/images/(?P<case>[^/]+)\.jpg",
            label=r"(.*/)?(?P<within>(?P<split>train|test))/groundtruth/(?P<case>[^/]+?)(_gt)?\.png",
        ),
    ),
    labels=ByColour(
        (
            ((0, 85, 170), "grasper"),
            ((0, 85, 255), "bipolar forceps"),
            ((0, 170, 255), "l-hook electrocautery"),
            ((0, 255, 85), "surgical scissors"),
            ((0, 255, 170), "clip applier"),
            ((85, 0, 170), "suction irrigator"),
            ((85, 0, 255), "specimen bag"),
            ((170, 85, 85), "trocar"),
            ((170, 170, 170), "surgical clip"),
            ((85, 170, 0), "liver"),
            ((85, 170, 255), "gallbladder"),
            ((85, 255, 0), "fat"),
            ((85, 255, 170), "abdominal wall"),
            ((170, 0, 255), "artery"),
            ((255, 0, 255), "intestine"),
            ((255, 255, 0), "bile"),
            ((255, 0, 0), "blood"),
        ),
        ignore=((170, 0, 85),),
    ),
    annotator="annotators of the authors",
    official_split={"train": "development", "test": "test"},
    not_data={r"(.*/)?trainval/.*": "the train pictures once more, and the authors' choice for validation"},
)


def cases(root: Path) -> Iterator[RawCase]:
    """Frames with the colour mask of the same name."""
    return find_cases(CARD, root)
