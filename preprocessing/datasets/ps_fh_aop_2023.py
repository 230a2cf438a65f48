"""PS-FH-AOP 2023: pubic symphysis and fetal head in transperineal ultrasound.

Source doi:10.5281/zenodo.7851339 (JNU-IFM frames), doi:10.1016/j.dib.2022.107904. Each frame is one MetaImage,
3 x 256 x 256 with the colour as first axis, its mask 256 x 256. The video of a frame is not in its name.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import ByValue, DatasetCard, Layout, Licence, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="PS-FH-AOP-2023",
    title="Pubic symphysis and fetal head, angle of progression",
    modality="ultrasound",
    licence=Licence("CC BY 4.0 as remembered, not checked"),
    citation="Lu et al., The JNU-IFM dataset for segmenting pubic symphysis-fetal head, Data in Brief 41 (2022) 107904",
    doi="10.5281/zenodo.7851339",
    homepage="https://zenodo.org/records/7851339",
    layout_checked="torch-em 6f71247c, medical/jnuifm.py and psfhs.py; the axes as remembered",
    layouts=(
        Layout(
            image=r"(.*/)?image_mha/(?P<case>[^/]+)\.mha",
            label=r"(.*/)?label_mha/(?P<case>[^/]+)\.mha",
            axes="cyx",
            label_axes="yx",
        ),
    ),
    labels=ByValue({1: "pubic symphysis", 2: "fetal head"}),
    searched=("pubic symphysis", "fetal head"),
    annotator="two annotators, checked by an experienced radiologist",
)


def cases(root: Path) -> Iterator[RawCase]:
    """Frames with the mask of the same name."""
    return find_cases(CARD, root)
