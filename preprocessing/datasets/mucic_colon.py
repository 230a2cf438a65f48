"""MUCIC Colon: nuclei in synthetic 3D fluorescence microscopy, stacks in HDF5.

Source https://cbia.fi.muni.cz/datasets, doi:10.1007/978-3-642-21593-3_4. `image-final_0000.h5` and
`image-labels_0000.h5` with the variable `Image`; labels are one mask, touching nuclei one object. The
variants (noise, clustering) repeat the numbers: the archive's folder is part of the name, and a number is one
group in all variants.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import DatasetCard, InstanceIds, Intensity, Layout, Licence, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="MUCIC_Colon",
    title="MUCIC colon tissue nuclei (synthetic)",
    modality="fluorescence microscopy",
    licence=Licence("free with citation; not checked further"),
    citation="Svoboda et al., Generation of 3D digital phantoms of colon tissue, ICIAR 2011",
    doi="10.1007/978-3-642-21593-3_4",
    homepage="https://cbia.fi.muni.cz/datasets/",
    layout_checked="torch-em 6f71247c, light_microscopy/mucic.py",
    layouts=(
        Layout(
            image=r"(.*/)?(?P<within>ColonTissue[^/]*)/(.*/)?image-final_(?P<case>\d+)\.(h5|hdf5)",
            label=r"(.*/)?(?P<within>ColonTissue[^/]*)/(.*/)?image-labels_(?P<case>\d+)\.(h5|hdf5)",
            image_key="Image",
            label_key="Image",
            axes="zyx",
            label_axes="zyx",
        ),
    ),
    labels=InstanceIds("cell nucleus"),
    intensity=Intensity("percentile", (0.5, 99.5)),
    instances="components",
    searched=("cell nucleus",),
    annotator="known by construction",
    group=r"_(\d+)$",
)


def cases(root: Path) -> Iterator[RawCase]:
    """Stacks with the label stack of the same number."""
    return find_cases(CARD, root)
