"""NucMM-Z: neuronal nuclei in electron microscopy of a whole zebrafish brain, 64-voxel cubes in HDF5.

Source https://nucmm.grand-challenge.org, doi:10.1007/978-3-030-87193-2_16. Variable `main` in image and label
files; labels number the nuclei. All cubes are of one brain: the official train and val parts are kept, and no
other independence can be had.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import DatasetCard, InstanceIds, Intensity, Layout, Licence, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="NucMM-Z",
    title="NucMM zebrafish nuclei",
    modality="electron microscopy",
    licence=Licence("free for research with citation; not checked further"),
    citation="Lin et al., NucMM dataset: 3D neuronal nuclei instance segmentation, MICCAI 2021",
    doi="10.1007/978-3-030-87193-2_16",
    homepage="https://nucmm.grand-challenge.org/",
    layout_checked="torch-em 6f71247c, electron_microscopy/nuc_mm.py; prefixes img_ and seg_ as remembered",
    layouts=(
        Layout(
            image=r"(.*/)?Image/(?P<within>(?P<split>train|val))/(img_|image_)?(?P<case>[^/]+)\.h5",
            label=r"(.*/)?Label/(?P<within>(?P<split>train|val))/(seg_|label_)?(?P<case>[^/]+)\.h5",
            image_key="main",
            label_key="main",
            axes="zyx",
            label_axes="zyx",
        ),
    ),
    labels=InstanceIds("cell nucleus"),
    intensity=Intensity("percentile", (0.5, 99.5)),
    instances="values",
    searched=("cell nucleus",),
    annotator="neuroscientists of the authors",
    official_split={"train": "train", "val": "val"},
)


def cases(root: Path) -> Iterator[RawCase]:
    """Cubes with the label cube of the same name."""
    return find_cases(CARD, root)
