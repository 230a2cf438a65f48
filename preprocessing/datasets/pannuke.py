"""PanNuke: nuclei of five kinds in H&E patches of nineteen tissues, three folds of NPY arrays.

Source https://warwick.ac.uk/fac/cross_fac/tia/data/pannuke, arXiv:2003.10778. masks.npy is (N, 256, 256, 6): a
channel a kind, whose values number the nuclei; channel 5 is background. The slide of a patch is not
published, so no split by patch is safe: the folds are kept apart, as the first official protocol has them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import ByChannel, DatasetCard, Intensity, Layout, Licence, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="PanNuke",
    title="PanNuke nuclei",
    modality="histopathology",
    licence=Licence("CC BY-NC-SA 4.0, research only", spdx="CC-BY-NC-SA-4.0", redistribution="yes", commercial="no"),
    citation="Gamper et al., PanNuke dataset extension, insights and baselines, arXiv:2003.10778",
    doi="10.48550/arXiv.2003.10778",
    homepage="https://warwick.ac.uk/fac/cross_fac/tia/data/pannuke",
    layout_checked="torch-em 6f71247c, histopathology/pannuke.py; a public dataset page for the licence",
    layouts=(
        Layout(
            image=r"(.*/)?[Ff]old[ _]?(?P<split>[123])/images/(?P<case>fold[123])/images\.npy",
            label=r"(.*/)?[Ff]old[ _]?(?P<split>[123])/masks/(?P<case>fold[123])/masks\.npy",
            axes="nyxc",
            label_axes="nyxc",
            stacked=True,
        ),
    ),
    labels=ByChannel(
        {
            0: "neoplastic cell nucleus",
            1: "inflammatory cell nucleus",
            2: "connective tissue cell nucleus",
            3: "dead cell nucleus",
            4: "epithelial cell nucleus",
        },
        instance_ids=True,
        ignore=(5,),
    ),
    intensity=Intensity("window", (0.0, 255.0)),
    instances="values",
    searched=(
        "connective tissue cell nucleus",
        "dead cell nucleus",
        "epithelial cell nucleus",
        "inflammatory cell nucleus",
        "neoplastic cell nucleus",
    ),
    annotator="semi-automatic, checked by pathologists",
    group=r"^(fold[123])",
    official_split={"1": "train", "2": "val", "3": "test"},
    not_data={r"(.*/)?types\.npy": "the tissue of each patch"},
)


def cases(root: Path) -> Iterator[RawCase]:
    """The patches of a fold with their masks; a fold is one group."""
    return find_cases(CARD, root)
