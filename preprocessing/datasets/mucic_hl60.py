"""MUCIC HL60: nuclei in synthetic 3D fluorescence microscopy, stacks in HDF5.

Source https://cbia.fi.muni.cz/datasets, doi:10.1002/cyto.a.20811. `image-final_0000.h5` and
`image-labels_0000.h5` with the variable `Image`; the labels number the nuclei. The
variants (noise, clustering) repeat the numbers: the archive's folder is part of the name, and a number is one
group in all variants.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import DatasetCard, InstanceIds, Intensity, Layout, Licence, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="MUCIC_HL60",
    title="MUCIC HL60 nuclei (synthetic)",
    modality="fluorescence microscopy",
    licence=Licence("free with citation; not checked further"),
    citation="Svoboda et al., Generation of digital phantoms of cell nuclei, Cytometry A 75A (2009) 494-509",
    doi="10.1002/cyto.a.20811",
    homepage="https://cbia.fi.muni.cz/datasets/",
    layout_checked="torch-em 6f71247c, light_microscopy/mucic.py",
    layouts=(
        Layout(
            image=r"(.*/)?(?P<within>HL60[^/]*)/(.*/)?image-final_(?P<case>\d+)\.(h5|hdf5)",
            label=r"(.*/)?(?P<within>HL60[^/]*)/(.*/)?image-labels_(?P<case>\d+)\.(h5|hdf5)",
            image_key="Image",
            label_key="Image",
            axes="zyx",
            label_axes="zyx",
        ),
    ),
    labels=InstanceIds("cell nucleus"),
    intensity=Intensity("percentile", (0.5, 99.5)),
    instances="values",
    searched=("cell nucleus",),
    annotator="known by construction",
    group=r"_(\d+)$",
)


def cases(root: Path) -> Iterator[RawCase]:
    """Stacks with the label stack of the same number."""
    return find_cases(CARD, root)
